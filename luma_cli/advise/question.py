"""What was asked of the advisor, and the one line that says why there is no answer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from luma_cli.advise import budgets as held
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.predictor import Predictor
from luma_cli.advise.ranking import rank
from luma_cli.advise.scales import by_preference
from luma_cli.errors import NoAnswer
from luma_cli.head.config import HeadName
from luma_cli.speed.measured import Bench, Measured, choose
from luma_cli.units import Budget, FlopConvention

# Enough to span sizes, few enough to be profiled over a coffee.
_NUM_SUGGESTED = 4
_MODEST = (Budget("macs", 150e9, "150gmacs"),)  # bounds what is suggested where no other budget bounds the cost
# Where most published figures are: ADE20K crops of 512, Cityscapes crops of 1024.
_USUAL_RESOLUTION = {"ade20k": 512, "cityscapes": 1024}


@dataclass(frozen=True, slots=True)
class Question:
    """Budgets and filters. resolutions, families: empty for any."""

    dataset: str
    budgets: tuple[Budget, ...]
    resolutions: tuple[int, ...]
    families: frozenset[str]
    convention: FlopConvention
    device: str | None
    head: HeadName = "luma"

    @property
    def is_measured(self) -> bool:
        """Whether a budget can only be held against measurements."""
        return any(budget.kind in held.MEASURED for budget in self.budgets)

    def eligible(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Candidates whose weights can be had and that pass the filters."""
        return [
            each
            for each in candidates
            if each.public_weights
            and (not self.families or each.family in self.families)
            and (not self.resolutions or each.resolution in self.resolutions)
        ]

    def bench(self, candidates: Sequence[Candidate], measured: Sequence[Measured], predictor: Predictor) -> Bench:
        """The measured rows to answer from. Raises NoAnswer with the command that would produce them."""
        try:
            return choose(measured, self.device, self.head)
        except NoAnswer as nothing:
            asked = ", ".join(budget.text for budget in self.budgets if budget.kind in held.MEASURED)
            raise NoAnswer(
                f"{nothing}, so {asked} cannot be answered; run: {self.command(candidates, predictor)}"
            ) from nothing

    def command(self, candidates: Sequence[Candidate], predictor: Predictor) -> str:
        """A `luma profile` line that measures a handful of what the other budgets allow, best evidence first."""
        counted = [budget for budget in self.budgets if budget.kind not in held.MEASURED]
        pool = [each for each in self.eligible(candidates) if held.fits(each, counted or _MODEST)]
        resolution = self.resolutions[0] if self.resolutions else _USUAL_RESOLUTION[self.dataset]
        names = self._suggested([each for each in pool if each.resolution == resolution], predictor)
        device = f" --device {shlex.quote(self.device)}" if self.device else ""
        head = "" if self.head == "luma" else f" --head {self.head}"
        return f"luma profile {' '.join(names) or 'vit_s'} --res {resolution}{head}{device}"

    def _suggested(self, pool: Sequence[Candidate], predictor: Predictor) -> list[str]:
        scales = predictor.scales(self.dataset)
        rankings = by_preference([(preference, rank(pool, (), predictor, scale)) for preference, scale in scales])
        ranked = [row.candidate for ranking in rankings[:2] for row in ranking.rows[:2]]
        by_cost = sorted((each for each in pool if each.macs is not None), key=lambda each: (each.macs or 0, each.key))
        spread = [by_cost[index * len(by_cost) // _NUM_SUGGESTED] for index in range(_NUM_SUGGESTED) if by_cost]
        unique: dict[str, str] = {}
        for each in [*ranked, *spread]:
            unique.setdefault(each.architecture, each.name)
        return list(unique.values())[:_NUM_SUGGESTED]

    def unmet(self, pool: Sequence[Candidate]) -> str:
        """Why no candidate of the pool meets the budgets: the cheapest one and its value, per budget that fails."""
        if not pool:
            return f"no candidate with public weights is left{self._filters()}; leave out --res or --family"
        return "; ".join(filter(None, (self._unmet(pool, budget) for budget in self.budgets))) or self._jointly(pool)

    def _unmet(self, pool: Sequence[Candidate], budget: Budget) -> str:
        best = held.cheapest(pool, budget)
        if best is None:
            hint = "; run luma profile NAME --batch auto" if budget.kind == "images_per_second" else ""
            return f"{budget.text}: {held.TITLES[budget.kind]} is not known of any candidate here{hint}"
        value = held.cost(best, budget.kind)
        if value is None or budget.holds(value):
            return ""
        least = "fastest" if budget.is_floor else "cheapest"
        said = held.describe(budget.kind, value, self.convention)
        return f"nothing meets {budget.text}: the {least} candidate is {best.name} at {best.resolution} px with {said}"

    def _jointly(self, pool: Sequence[Candidate]) -> str:
        asked = " and ".join(budget.text for budget in self.budgets)
        first = self.budgets[0]
        allowed = [each for each in pool if held.fits(each, [first])]
        nearest = held.cheapest(allowed, self.budgets[1])
        value = held.cost(nearest, self.budgets[1].kind) if nearest else None
        if nearest is None or value is None:
            return f"nothing meets {asked} together"
        said = held.describe(self.budgets[1].kind, value, self.convention)
        return (
            f"nothing meets {asked} together: within {first.text} the cheapest candidate is {nearest.name} "
            f"at {nearest.resolution} px with {said}"
        )

    def _filters(self) -> str:
        sizes = f" at {', '.join(map(str, self.resolutions))} px" if self.resolutions else ""
        families = f" in family {', '.join(sorted(self.families))}" if self.families else ""
        return sizes + families
