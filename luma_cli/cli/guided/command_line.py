"""The commands that guided mode stands for, as arguments of `luma`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from luma_cli.cli.guided.dialogue import Answers


def recommend_arguments(answers: Answers) -> list[str]:
    """`luma recommend` with the same answer."""
    budgets = [part for budget in answers.budgets for part in ("--budget", budget)]
    return ["recommend", "--dataset", answers.dataset, *budgets, *_filters(answers)]


def front_arguments(answers: Answers) -> list[str]:
    """`luma front` over what is limited first."""
    return ["front", "--x", answers.axis, "--dataset", answers.dataset, *_filters(answers)]


def _filters(answers: Answers) -> list[str]:
    device = ["--device", answers.device] if answers.device else []
    return [*device, *(part for licence in answers.licences for part in ("--license", licence))]


def profile_arguments(chosen: Sequence[tuple[str, int]], device: str) -> list[list[str]]:
    """`luma profile` of backbones at their resolutions: one command for each resolution."""
    by_size: dict[int, list[str]] = {}
    for name, resolution in chosen:
        by_size.setdefault(resolution, []).append(name)
    return [["profile", *names, "--res", str(size), "--device", device] for size, names in by_size.items()]


def train_arguments(name: str, resolution: int, dataset: str) -> list[str]:
    """`luma train` of one backbone."""
    return ["train", name, "--data", dataset, "--res", str(resolution)]


def spelled(arguments: Sequence[str]) -> str:
    """The line to type.

    >>> spelled(["recommend", "--device", "NVIDIA H200"])
    "luma recommend --device 'NVIDIA H200'"
    """
    return shlex.join(["luma", *arguments])
