"""What `luma scaling` answers: the law where the results tell it, the paper's split where not, and the runs that would.

The paper's 0.83 / 0.2 is never mixed with a fit: it takes the place of n and t where one of them is wider than
`bootstrap.WIDEST`, and is named as the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import NoAnswer
from luma_cli.evidence.evidence import Evidence
from luma_cli.scaling.bootstrap import Exponents, bootstrap
from luma_cli.scaling.law import PAPER, PAPER_SOURCE, ComputeSplit, FittedLaw, contrasts, fit, missing
from luma_cli.scaling.series import (
    DECIDE,
    MEASURE,
    NOISE_MIOU,
    Chosen,
    Experiment,
    Local,
    Model,
    Series,
    choose,
    experiment,
    load_series,
    local,
    most_telling,
    parse_model,
)
from luma_cli.store.runs import OwnRun
from luma_cli.to_json import to_json

# Published results scatter for reasons that size and tokens do not explain; beyond 2% of the error (1 mIoU point at 50)
# one of them pulls no harder.
HUBER_PUBLISHED = 0.02
_FORMULA = "error = E + A (N/N0)^-a + B (T/T0)^-b, error = 100 - mIoU in percent"


@dataclass(frozen=True, slots=True)
class Scaling:
    """The answer for one dataset and series.

    asked: the filters in words, empty without. chosen: the points, also those of a law that was refused. refusal: why
    there is no law, empty when there is one. at: the model that exponents and elasticities
    are given for. along: the same size at the smallest and the largest resolution, where they differ. split: what to
    spend compute by, split_source says whose. designs: 9 and 16 runs that would tell.
    """

    dataset: str
    asked: str
    chosen: Chosen
    sizes: tuple[float, ...]
    token_counts: tuple[float, ...]
    fit: FittedLaw | None
    exponents: Exponents | None
    refusal: str
    series: Series
    at: Local
    along: tuple[Local, ...]
    split: ComputeSplit
    split_source: str
    designs: tuple[Experiment, ...]
    next_run: Model | None

    @property
    def measured(self) -> bool:
        """Whether the split is read off the results rather than the paper's."""
        return self.exponents is not None and self.exponents.identified

    def __json__(self) -> dict[str, Any]:
        """Schema 1; errors in percent, costs in multiply-adds."""
        return {
            "schema": 1,
            "dataset": self.dataset,
            "filters": self.asked or None,
            "tokens": "(height / 16) * (width / 16) of the crop, for every backbone",
            "params": "of the backbone without head",
            "points": self.chosen.points,
            "levels": len(self.chosen.levels),
            "own_runs": self.chosen.num_own,
            "left_out": self.chosen.left_out,
            "sizes_compared": self.sizes,
            "token_counts_compared": self.token_counts,
            "refusal": self.refusal or None,
            "law": {"formula": _FORMULA, **to_json(self.fit.law)} if self.fit else None,
            "exponents": self.exponents,
            "at": self.at,
            "along": self.along,
            "split": {**to_json(self.split), "source": self.split_source},
            "paper": {**to_json(PAPER), "source": PAPER_SOURCE},
            "designs": [self._design(each) for each in self.designs],
            "next_run": self.next_run and self.next_run.train_line(self.dataset),
        }

    def _design(self, design: Experiment) -> dict[str, Any]:
        """Every run with exact cost and command, and how far they would tell n."""
        return {
            "series": design.series,
            "runs": [
                {**to_json(each.model), "done": each.done, "command": each.model.train_line(self.dataset)}
                for each in design.runs
            ],
            "expected_half_width_90_of_n": design.half_width,
            "assuming": f"the paper's split and {NOISE_MIOU} mIoU between seeds",
        }


def scaling(
    evidence: Sequence[Evidence],
    runs: Sequence[OwnRun],
    dataset: str,
    start: str,
    head: HeadConfig,
    *,
    family: str = "",
    pretraining: str = "",
    own_only: bool = False,
) -> Scaling:
    """What the results say about spending compute, near the model `start` (`vit_b.dinov3@512`).

    Raises UsageError and UnknownName for a start that is none, BadResolution for a size that is not costed.
    """
    name, resolution = parse_model(start)
    series, name = load_series(name, head)
    at = local(series, series.model(name, resolution))
    chosen = choose(evidence, runs, dataset, family=family, pretraining=pretraining, own_only=own_only)
    sizes, tokens = contrasts(chosen.points)
    grids = (experiment(series, side, at.elasticity, chosen.points) for side in (DECIDE, MEASURE))
    designs = tuple(each for each in grids if each is not None)
    own = [point for point in chosen.points if point.own and point.name in series.sizes]
    filters = (
        family and f"family {family}",
        pretraining and f"pretraining {pretraining}",
        own_only and "own runs only",
    )
    refusal = missing(chosen.points)
    fitted = exponents = None
    if not refusal:
        fitted = fit(chosen.points, None if chosen.num_own == len(chosen.points) else HUBER_PUBLISHED)
        exponents = bootstrap(fitted, at.elasticity)
    told = exponents if exponents is not None and exponents.identified else None
    return Scaling(
        dataset=dataset,
        asked=", ".join(each for each in filters if each),
        chosen=chosen,
        sizes=tuple(sizes),
        token_counts=tuple(tokens),
        fit=fitted,
        exponents=exponents,
        refusal=refusal,
        series=series,
        at=at,
        along=_along(series, at.model),
        split=ComputeSplit(told.size.value, told.tokens.value) if told else PAPER,
        split_source="these results" if told else f"the paper's ({PAPER_SOURCE})",
        designs=designs,
        next_run=most_telling(own, designs[0].missing, at.elasticity) if designs else None,
    )


def _along(series: Series, model: Model) -> tuple[Local, ...]:
    """The size of `model` at its smallest, its own and its largest resolution."""
    sides = sorted(resolution for name, resolution in series.models if name == model.name)
    found = []
    for side in sorted({sides[0], model.resolution, sides[-1]}):
        try:
            found.append(local(series, series.model(model.name, side)))
        except NoAnswer:
            continue
    return tuple(found)
