"""Candidates as what accuracy is predicted of."""

from __future__ import annotations

from luma_cli.accuracy.subject import Subject
from luma_cli.accuracy.subjects import subject_of
from luma_cli.advise.candidates import Candidate


def subject(candidate: Candidate, dataset: str, head: str) -> Subject:
    """The candidate with this head, fine-tuned on square crops of its size, scored at a single scale."""
    return subject_of(
        candidate.timm_name, dataset, resolution=candidate.resolution, pretraining=candidate.pretraining, head=head
    )
