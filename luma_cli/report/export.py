"""What was exported and how well it agrees with torch, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from luma_cli.export.export import Exported


def export_lines(made: Exported) -> Iterator[str]:
    """One line per output of the file, and one about the input."""
    facts = made.facts
    shape = f"[{facts.batch or 'any'}, 3, {facts.resolution}, {facts.resolution}]"
    if made.format != "safetensors":
        yield f"input images {shape}, RGB, normalised with mean and std of the file's metadata"
    for (name, shape), each in zip(facts.outputs, made.agreements, strict=True):
        yield (
            f"output {name} {shape}: differs from torch by at most {each.max_abs_difference:.2g} "
            f"({each.relative:.1g} of its largest value) on {made.num_inputs} random inputs"
        )
