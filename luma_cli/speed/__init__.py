"""Time, memory and energy of a segmenter on one device: measured rows first, predictions with intervals beside them."""
