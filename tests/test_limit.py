"""What may be typed as an amount, and the budget that it means."""

from __future__ import annotations

import pytest

from luma_cli.cli.guided.dialogue import LIMITS
from luma_cli.errors import BadBudget
from luma_cli.units import parse_budget


@pytest.mark.parametrize(
    ("key", "typed", "budget"),
    [
        ("compute", "200", "200gflops"),
        ("compute", " 1.5 TFLOPs ", "1.5TFLOPs"),
        ("compute", "100 gmacs", "100gmacs"),
        ("time", "20", "20ms"),
        ("time", "30 fps", "30fps"),
        ("throughput", "500", "500img/s"),
        ("memory", "8", "8GiB"),
        ("memory", "8 GB", "8GB"),
        ("params", "50", "50Mparams"),
        ("energy", "2", "2J"),
    ],
)
def test_a_bare_number_has_the_units_of_its_limit_and_others_are_kept(key: str, typed: str, budget: str) -> None:
    assert LIMITS[key].budget(typed) == budget
    assert parse_budget(budget).kind in LIMITS[key].kinds


@pytest.mark.parametrize("typed", ["", "0", "-5", "bananas", "200bananas", "20ms", "nan", "1e999", "1.2.3", "inf"])
def test_what_is_no_amount_is_one_line_with_an_example(typed: str) -> None:
    problem = LIMITS["compute"].problem(typed)
    assert problem.endswith("try 200gflops")
    assert "\n" not in problem
    with pytest.raises(BadBudget):
        LIMITS["compute"].budget(typed)


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_the_examples_are_amounts(limit) -> None:  # type: ignore[no-untyped-def]
    for example in limit.example.split(" or "):
        assert limit.problem(example) == ""
        assert limit.budget(example) == example


def test_every_kind_of_budget_can_be_asked_for_once() -> None:
    kinds = [kind for limit in LIMITS.values() for kind in limit.kinds]
    assert len(kinds) == len(set(kinds))
    assert {"macs", "params", "ms", "fps", "images_per_second", "bytes", "joules"} <= set(kinds)
