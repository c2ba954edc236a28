"""The LUMA head (arXiv 2607.00687) and the segmenter that joins it to a backbone."""
