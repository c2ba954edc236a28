"""Fine-tuning of a segmenter: recipe, loss, optimiser, run folder, checkpoints, the loop."""
