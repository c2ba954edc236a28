"""From the tapped block's map to the resolution of the masks, by doublings as EoMT does (arXiv 2503.19108).

B batch, D channels, h w map. Every map is NCHW in shape and channels-last in memory, so that the norms copy nothing.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu

from luma_cli.head.attention import NORM_EPS


class ScaleBlock(nn.Module):
    """Twice the resolution: transposed 2x2 convolution, GELU, depthwise 3x3 without bias, norm over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
        self.smooth = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, D, 2h, 2w]."""
        pixels = self.smooth(gelu(self.enlarge(pixels)))
        normed: Tensor = self.norm(pixels.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


def upscale(width: int, num_blocks: int) -> nn.Sequential:
    """`num_blocks` doublings of a map with `width` channels."""
    return nn.Sequential(*(ScaleBlock(width) for _ in range(num_blocks)))
