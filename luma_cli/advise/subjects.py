"""Candidates as what accuracy is predicted of."""

from __future__ import annotations

from luma_cli.accuracy.subject import Subject
from luma_cli.advise.candidates import Candidate


def subject(candidate: Candidate, dataset: str, head: str) -> Subject:
    """The candidate with this head, fine-tuned on square crops of its size, scored at a single scale."""
    return Subject(
        dataset=dataset,
        backbone=candidate.timm_name,
        architecture=candidate.architecture,
        lineage=candidate.card,
        pretraining=candidate.pretraining or "other",
        params=candidate.backbone_params,
        height=candidate.resolution,
        width=candidate.resolution,
        head=head,
    )
