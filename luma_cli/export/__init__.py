"""A segmenter as a file that other programs run: torch.export, ONNX or safetensors, checked against eager torch."""
