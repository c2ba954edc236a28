"""luma: which backbone, which pretraining, which resolution? Evidence for segmentation."""

from luma_cli.version import __version__

__all__ = ["__version__"]
