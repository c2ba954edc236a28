"""Candidates as what accuracy is predicted of."""

from __future__ import annotations

from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.accuracy.subjects import Subject, subject_of
from luma_cli.advise.candidates import Candidate
from luma_cli.evidence.evidence import HEAD_TITLES


def subject(candidate: Candidate, dataset: str, head: str) -> Subject:
    """The candidate with this head, fine-tuned on square crops of its size, scored at a single scale.

    Without a head nothing is segmented: then the mIoU is LUMA's, and only costs are those of the backbone alone.
    """
    return subject_of(
        candidate.timm_name,
        dataset,
        resolution=candidate.resolution,
        pretraining=candidate.pretraining,
        head="luma" if head == "none" else head,
    )


def scale_note(model: AccuracyModel, head: str) -> str:
    """On what scale the mIoU of `subject` is."""
    return model.scale_note if head in ("luma", "none") else f"on the scale of the {HEAD_TITLES.get(head, head)} head"
