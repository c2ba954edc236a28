"""What `luma scaling` answers: the law where the results tell it, the paper's split where not, and the runs that would.

The paper's 0.83 / 0.2 is never mixed with a fit: it stands in where n or t is wider than `bootstrap.WIDEST`, named as
the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import NoAnswer
from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_runs import OwnRun
from luma_cli.scaling.bootstrap import Exponents, bootstrap
from luma_cli.scaling.experiment import DECIDE, MEASURE, Experiment, experiment, most_telling
from luma_cli.scaling.law import Fit, contrasts, fit, missing
from luma_cli.scaling.local import Local, local
from luma_cli.scaling.optimal import PAPER, PAPER_SOURCE, Split
from luma_cli.scaling.selection import Chosen, choose
from luma_cli.scaling.series import Model, Series, load_series, parse_model

# Published results scatter for reasons that size and tokens do not explain; beyond 2% of the error (1 mIoU point at 50)
# one of them pulls no harder.
HUBER_PUBLISHED = 0.02


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
    fit: Fit | None
    exponents: Exponents | None
    refusal: str
    series: Series
    at: Local
    along: tuple[Local, ...]
    split: Split
    split_source: str
    designs: tuple[Experiment, ...]
    next_run: Model | None

    @property
    def measured(self) -> bool:
        """Whether the split is read off the results rather than the paper's."""
        return self.exponents is not None and self.exponents.identified

    def to_json(self) -> dict[str, Any]:
        """Schema 1; errors in percent, costs in multiply-adds."""
        return {
            "schema": 1,
            "dataset": self.dataset,
            "filters": self.asked or None,
            "tokens": "(height / 16) * (width / 16) of the crop, for every backbone",
            "params": "of the backbone without head",
            "points": [point.to_json() for point in self.chosen.points],
            "levels": len(self.chosen.levels),
            "own_runs": self.chosen.num_own,
            "left_out": dict(self.chosen.left_out),
            "sizes_compared": list(self.sizes),
            "token_counts_compared": list(self.token_counts),
            "refusal": self.refusal or None,
            "law": self.fit.law.to_json() if self.fit else None,
            "exponents": self.exponents.to_json() if self.exponents else None,
            "at": self.at.to_json(),
            "along": [each.to_json() for each in self.along],
            "split": {"n": self.split.size, "t": self.split.tokens, "source": self.split_source},
            "paper": {"n": PAPER.size, "t": PAPER.tokens, "source": PAPER_SOURCE},
            "designs": [each.to_json(self.dataset) for each in self.designs],
            "next_run": self.next_run and self.next_run.train_line(self.dataset),
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
    seed: int = 0,
) -> Scaling:
    """What the results say about spending compute, near the model `start` (`vit_b.dinov3@512`).

    Raises UsageError and UnknownName for a start that is none, BadResolution for a size that is not costed.
    """
    name, resolution = parse_model(start)
    series, name = load_series(name, head)
    at = local(series, series.model(name, resolution))
    chosen = choose(evidence, runs, dataset, family=family, pretraining=pretraining, own_only=own_only)
    sizes, tokens = contrasts(chosen.points)
    designs = tuple(
        each
        for side in (DECIDE, MEASURE)
        if (each := experiment(series, side, at.elasticity, chosen.points)) is not None
    )
    own = [point for point in chosen.points if point.own and point.name in series.sizes]
    next_run = most_telling(own, designs[0].missing, at.elasticity) if designs else None
    fitted, exponents, refusal = _fit(chosen, at, seed)
    told = exponents is not None and exponents.identified
    return Scaling(
        dataset=dataset,
        asked=_asked(family, pretraining, own_only),
        chosen=chosen,
        sizes=tuple(sizes),
        token_counts=tuple(tokens),
        fit=fitted,
        exponents=exponents,
        refusal=refusal,
        series=series,
        at=at,
        along=_along(series, at.model),
        split=Split(exponents.size.value, exponents.tokens.value) if exponents is not None and told else PAPER,
        split_source="these results" if told else f"the paper's ({PAPER_SOURCE})",
        designs=designs,
        next_run=next_run,
    )


def _fit(chosen: Chosen, at: Local, seed: int) -> tuple[Fit | None, Exponents | None, str]:
    lack = missing(chosen.points)
    if lack:
        return None, None, lack
    only_own = chosen.num_own == len(chosen.points)
    fitted = fit(chosen.points, None if only_own else HUBER_PUBLISHED)
    return fitted, bootstrap(fitted, at.elasticity, seed=seed), ""


def _along(series: Series, model: Model) -> tuple[Local, ...]:
    """The size of `model` at its smallest, its own and its largest resolution."""
    sides = sorted({each.resolution for each in series.models.values() if each.name == model.name})
    found = []
    for side in sorted({sides[0], model.resolution, sides[-1]}):
        try:
            found.append(local(series, series.model(model.name, side)))
        except NoAnswer:
            continue
    return tuple(found)


def _asked(family: str, pretraining: str, own_only: bool) -> str:
    parts = (family and f"family {family}", pretraining and f"pretraining {pretraining}", own_only and "own runs only")
    return ", ".join(part for part in parts if part)
