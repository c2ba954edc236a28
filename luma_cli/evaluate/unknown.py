"""How unsure a segmenter is of each pixel, and whether that tells objects that it never saw from those that it knows.

A pixel's score says how unknown it looks: the larger, the less sure. AUPRC, AUROC and FPR95 are over the pixels of a
whole split together, as SegmentMeIfYouCan (arXiv 2104.14812, section 5) and Fishyscapes (arXiv 1904.03215) do.
H W pixels of the image, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luma_cli.data.unknown import KNOWN, UNKNOWN, UnknownObjects
from luma_cli.errors import UsageError
from luma_cli.evaluate.inference import TTA_SCALES, Pixels, inference, look_at, seen_views, strips
from luma_cli.head.segmenter import Segmenter
from luma_cli.store.records import EvaluationRecord

Confidence = Literal["largest", "entropy", "max-logit"]
CONFIDENCES: tuple[Confidence, ...] = get_args(Confidence)
NUM_BINS = 2**19
_DROPPED_BITS = 32 - 19  # of float32


def unknown_scores(scores: Tensor, confidence: Confidence, *, are_logits: bool) -> Tensor:
    """float32 [...] from class scores [..., C]: the larger, the less sure the model is of the pixel.

    `largest`: what the likeliest class leaves of 1. `entropy`: of the class probabilities, divided by that of C equal
    ones. `max-logit`: the largest logit, negated. are_logits: of a linear head; scores of query heads are sums of mask
    times class probability, which add up to about 1, so what the largest leaves is counted from 1. Softmax leaves the
    sum of the others, added up as such: 1 - p would round what matters, the surest pixels, to 0.

    >>> unknown_scores(torch.tensor([[0.75, 0.25, 0.0]]), "largest", are_logits=False)
    tensor([0.2500])
    """
    if confidence == "max-logit":
        if not are_logits:
            raise UsageError(
                "--confidence max-logit needs a head with a logit per pixel and class (linear); "
                "of query heads it would order the pixels as largest does: use --confidence largest"
            )
        return -scores.amax(dim=-1)
    if confidence == "entropy":
        logs = (
            scores.log_softmax(dim=-1)
            if are_logits
            else (scores / scores.sum(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_min(1e-12).log()
        )
        entropy: Tensor = -(logs.exp() * logs).sum(dim=-1)
        return entropy / math.log(max(2, scores.shape[-1]))
    if not are_logits:
        return 1 - scores.amax(dim=-1)
    largest, at = scores.max(dim=-1, keepdim=True)
    shares = (scores - largest).exp().scatter(-1, at, 0.0)  # of the others, the largest being 1
    left: Tensor = shares.sum(dim=-1)
    return left / (1 + left)


def bins(scores: Tensor) -> Tensor:
    """int32 [...] from 0 to NUM_BINS - 1, in the order of the float32 scores: sign, exponent, ten bits of the fraction.

    So bins are narrow where a sure net's scores crowd, near 0. Equal bins lose 0.01 of FPR95 there, and float16, of the
    same ten bits, takes all below 1e-7 for one score.
    """
    bits = scores.contiguous().view(torch.int32) >> _DROPPED_BITS
    return torch.where(bits < 0, -1 - (bits & (NUM_BINS // 2 - 1)), bits) + NUM_BINS // 2


@dataclass(slots=True)
class UnknownCounts:
    """Pixels by bin of their score, int64 [2, NUM_BINS]: known, then unknown. Counts of processes add up."""

    pixels: NDArray[np.int64]
    num_images: int = 0
    num_windows: int = 0

    @classmethod
    def none(cls) -> UnknownCounts:
        """Before the first image."""
        return cls(np.zeros((2, NUM_BINS), dtype=np.int64))

    def add(self, scores: Tensor, truth: Tensor) -> None:
        """Scores float32 [...] and the mask's values uint8 [...] of the same pixels; void ones do not count."""
        counted = (truth == KNOWN) | (truth == UNKNOWN)
        keys = bins(scores[counted]) + NUM_BINS * (truth[counted] == UNKNOWN).to(torch.int32)
        self.pixels += torch.bincount(keys, minlength=2 * NUM_BINS).view(2, NUM_BINS).cpu().numpy()


@dataclass(frozen=True, slots=True)
class UnknownScores:
    """In percent. auprc: average precision of the unknown pixels. auroc: chance that an unknown pixel scores above a
    known one. fpr95: share of known pixels above the score that 95% of the unknown ones reach. unknown_share: of the
    pixels, which is the AUPRC of guessing.
    """

    auprc: float
    auroc: float
    fpr95: float
    unknown_share: float
    num_pixels: int


def curves(counts: UnknownCounts) -> UnknownScores:
    """The scores of the counts. Raises UsageError where nothing or everything is unknown.

    Average precision is the sum over bins of precision times the recall that the bin adds (no interpolation, as
    scikit-learn's `average_precision_score`); pixels of one bin are ties.
    """
    known, unknown = counts.pixels[:, ::-1].astype(np.float64)  # the least sure first
    num_known, num_unknown = known.sum(), unknown.sum()
    if not num_known or not num_unknown:
        what = "unknown" if num_known else "known"
        raise UsageError(f"no pixel of the masks is {what}: nothing can be told apart; --ood-value says which value is")
    found, wrong = np.cumsum(unknown), np.cumsum(known)
    precision = found / np.maximum(found + wrong, 1)
    auroc = float((unknown * (num_known - wrong + known / 2)).sum() / num_known / num_unknown)
    first = int(np.searchsorted(found, 0.95 * num_unknown))
    return UnknownScores(
        auprc=100 * float((precision * unknown).sum() / num_unknown),
        auroc=100 * auroc,
        fpr95=100 * float(wrong[first] / num_known),
        unknown_share=100 * float(num_unknown / (num_known + num_unknown)),
        num_pixels=int(num_known + num_unknown),
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """An image with its scores float32 [H, W] and the mask's values uint8 [H, W]."""

    name: str
    image: Pixels
    scores: NDArray[np.float32]
    truth: NDArray[np.uint8]


def evaluate_unknown(
    segmenter: Segmenter,
    data: UnknownObjects,
    confidence: Confidence,
    resolution: int,
    *,
    dtype: torch.dtype = torch.float32,
    tta: bool = False,
    batch: int = 1,
    on_image: Callable[[Judged], None] = lambda _: None,
) -> UnknownCounts:
    """The counts of a split, windows of `resolution` pixels. on_image: called after each image.

    Memory: class scores in strips of rows, as for label maps, and 4 H W bytes. Raises BadSample for an unusable image
    or mask, UsageError, Diverged.
    """
    counts = UnknownCounts.none()
    with inference(segmenter):
        for pair in data.pairs:
            image = data.image(pair)
            truth = data.mask(pair, image.shape)
            cut = look_at(image, resolution, tta=tta)
            views = seen_views(segmenter, cut, dtype, batch)
            are_logits = views[0].logits.class_probabilities is None
            parts = [unknown_scores(scores, confidence, are_logits=are_logits) for _, scores in strips(views)]
            scores = torch.cat(parts)
            counts.add(scores, torch.from_numpy(truth).to(scores.device))
            counts.num_images += 1
            counts.num_windows += sum(view.plan.num_windows for view in cut)
            on_image(Judged(pair.name, image, scores.cpu().numpy(), truth))
    return counts


def unknown_record(
    counts: UnknownCounts,
    *,
    confidence: Confidence,
    data: str,
    num_classes: int,
    resolution: int,
    seconds: float,
    tta: bool = False,
    dtype: str = "float32",
    macs_per_window: int | None = None,
    run_id: str = "",
    checkpoint_sha256: str = "",
    step: int = 0,
    evaluated_at: str = "",
) -> EvaluationRecord:
    """The record of the counts, its numbers in `scores`; it has no mIoU. data: name of the images and their masks."""
    found = curves(counts)
    windows = counts.num_windows / counts.num_images
    said = {"window": resolution, "resize": "short side to the window, PIL bilinear", "dtype": dtype}
    said |= {"scales": list(TTA_SCALES) if tta else [1.0], "flip": tta}
    return EvaluationRecord(
        run_id=run_id,
        checkpoint_sha256=checkpoint_sha256,
        step=step,
        data=data,
        split="ood",
        resolution=resolution,
        protocol={**said, "confidence": confidence, "pixels": "of all images together"},
        num_images=counts.num_images,
        num_skipped=0,
        num_windows=counts.num_windows,
        num_classes=num_classes,
        num_present=0,
        miou_percent=None,
        macc_percent=None,
        aacc_percent=None,
        boundary_miou_percent=None,
        windows_per_image=windows,
        macs_per_image=None if macs_per_window is None else windows * macs_per_window,
        seconds=seconds,
        evaluated_at=evaluated_at,
        scores={
            "ood_auprc_percent": found.auprc,
            "ood_auroc_percent": found.auroc,
            "ood_fpr95_percent": found.fpr95,
            "ood_share_percent": found.unknown_share,
        },
    )
