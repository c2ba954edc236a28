"""What a segmenter says about windows, in the small form in which it is kept until scores are needed.

n windows of R x R pixels, J maps per window on a grid g (J = K queries, g = R / 4; J = C classes on the patch grid for
the linear head), C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luma_cli.backbone.timm_model import Normalisation
from luma_cli.errors import Diverged, UsageError
from luma_cli.head.linear import PixelLogits
from luma_cli.head.mask_module import Prediction
from luma_cli.head.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class WindowLogits:
    """maps [n, g, g, J], and class_probabilities [n, J, C] of the queries, without "no object".

    A class's score at a pixel is the sum over queries of sigmoid(map) times probability; without queries
    (class_probabilities None, J = C) the map itself.
    """

    maps: Tensor
    class_probabilities: Tensor | None

    @property
    def num_classes(self) -> int:
        """C."""
        return self.maps.shape[-1] if self.class_probabilities is None else self.class_probabilities.shape[-1]

    def split(self, sizes: Sequence[int]) -> list[WindowLogits]:
        """The windows in runs of these lengths."""
        ends = list(accumulate(sizes))
        return [self._part(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]

    def _part(self, part: slice) -> WindowLogits:
        queries = self.class_probabilities
        return WindowLogits(self.maps[part], None if queries is None else queries[part])


def run_windows(
    segmenter: Segmenter, windows: Sequence[NDArray[np.uint8]], batch: int, dtype: torch.dtype = torch.float32
) -> WindowLogits:
    """Logits of windows [n, R, R, 3], given in pieces, in forward passes of at most `batch` windows.

    dtype: float32, or that of autocast. Raises Diverged where the model gives no finite numbers, UsageError for a
    segmenter without a head.
    """
    stacked = windows[0] if len(windows) == 1 else np.concatenate(windows)
    parts = [_forward(segmenter, stacked[at : at + batch], dtype) for at in range(0, len(stacked), batch)]
    if parts[0].class_probabilities is None:
        return WindowLogits(torch.cat([part.maps for part in parts]), None)
    probabilities = [part.class_probabilities for part in parts if part.class_probabilities is not None]
    return WindowLogits(torch.cat([part.maps for part in parts]), torch.cat(probabilities))


def _forward(segmenter: Segmenter, windows: NDArray[np.uint8], dtype: torch.dtype) -> WindowLogits:
    like = next(segmenter.parameters())
    images = normalise(torch.from_numpy(windows).to(like.device), segmenter.backbone.normalisation).to(like.dtype)
    with torch.autocast(like.device.type, dtype, enabled=dtype != torch.float32):
        output = segmenter(images)
    if isinstance(output, Prediction):
        probabilities = output.class_logits.float().softmax(dim=-1)[..., :-1]
        found = WindowLogits(output.mask_logits.permute(0, 2, 3, 1).contiguous(), probabilities)
    elif isinstance(output, PixelLogits):
        found = WindowLogits(output.logits.permute(0, 2, 3, 1).contiguous(), None)
    else:
        raise UsageError("this segmenter has head 'none', which predicts no classes; build it with --head luma")
    _check_finite(found)
    return found


def _check_finite(logits: WindowLogits) -> None:
    """Sums stay finite only where every number is; cheaper than looking at each."""
    total = logits.maps.sum(dtype=torch.float32)
    if logits.class_probabilities is not None:
        total = total + logits.class_probabilities.sum()
    if not bool(total.isfinite()):
        raise Diverged("the model's logits are not finite numbers; use an earlier checkpoint, or --dtype fp32")


def normalise(windows: Tensor, normalisation: Normalisation) -> Tensor:
    """Bytes [n, R, R, 3] -> float32 [n, 3, R, R], as the backbone's checkpoint wants them."""
    mean = torch.tensor(normalisation.mean, device=windows.device).view(1, 3, 1, 1)
    std = torch.tensor(normalisation.std, device=windows.device).view(1, 3, 1, 1)
    return windows.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)
