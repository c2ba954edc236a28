"""The segmenter as training calls it: 8-bit images in, every supervised prediction out.

B images of a pass, R their side in pixels, J joint blocks of an EoMT head, K queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from luma_cli.head.eomt import EomtHead
from luma_cli.head.segmenter import Output, Segmenter
from luma_cli.isotropic.mixtures import balance_loss
from luma_cli.seeds import MASKS
from luma_cli.train.draws import uniform

_WHITE = 255


class Supervised(nn.Module):
    """Normalises with the backbone's own mean and standard deviation, then predicts.

    Besides the predictions it gives the balance loss of a mixture of experts, 0 for a dense backbone, so that wrappers
    that watch the output (DDP) see all that is trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter
        normalisation = segmenter.backbone.normalisation
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", _WHITE * torch.tensor(normalisation.mean).view(shape), persistent=False)
        self.register_buffer("std", _WHITE * torch.tensor(normalisation.std).view(shape), persistent=False)

    def forward(self, images: Tensor, draws: Tensor | None) -> tuple[tuple[Output, ...], Tensor]:
        """Images uint8 [B, 3, R, R] and an EoMT head's draws [B, J, K] -> predictions, final one last; balance loss."""
        normalised = (images - self.mean) / self.std
        return self.segmenter.predictions(normalised, draws), balance_loss(self.segmenter.backbone)


def mask_draws(
    segmenter: Segmenter, device: torch.device, seed: int, step: int, samples: Sequence[int]
) -> Tensor | None:
    """Numbers [B, J, K] that free an EoMT head's queries in this step, by sample; None where none are needed."""
    head = segmenter.head
    if not isinstance(head, EomtHead) or all(value in (0.0, 1.0) for value in head.mask_probabilities):
        return None
    shape = (head.plan.num_joint, head.queries.num_embeddings)
    return torch.stack([uniform(shape, device, MASKS, seed, step, sample) for sample in samples])
