"""A trained segmenter on images: windowed inference, metrics, predictions, export."""
