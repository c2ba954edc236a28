"""Datasets with labels: where they are, how they are read, checked, drawn, augmented and batched."""
