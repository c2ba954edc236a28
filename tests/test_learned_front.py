"""The learned front: its envelope, its chances, what it leaves out, and own runs below it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pytest
from advise_world import TableModel, TableSpeed, candidate, own_run
from rich.console import Console

from luma_cli.advise.costs import price
from luma_cli.advise.front import LearnedFront, learned_front
from luma_cli.advise.question import Priced, Question
from luma_cli.errors import NoAnswer
from luma_cli.evidence.own_runs import OwnRow
from luma_cli.report.front import front_table, print_front
from luma_cli.report.table import draw
from luma_cli.speed.quantity import Quantity

NAMES = {
    "vit_t": (5.0, 40.0),
    "vit_s": (20.0, 46.0),
    "conv_s": (22.0, 45.9),
    "vit_b": (80.0, 50.0),
    "old": (90.0, 42.0),
}
POOL = [candidate(name, gmacs=gmacs, params=int(gmacs * 1e6)) for name, (gmacs, _) in NAMES.items()]
MODEL = TableModel({each.timm_name: (NAMES[each.name][1], 0.5) for each in POOL})
QUESTION = Question("ade20k")


def priced() -> list[Priced]:
    return price(POOL, ["macs"], None, "luma", 150)


def front(runs: Sequence[OwnRow] = (), pool: Sequence[Priced] | None = None) -> LearnedFront:
    return learned_front(QUESTION, "macs", priced() if pool is None else pool, MODEL, runs)


def test_rows_are_the_envelope_of_the_predictions_cheapest_first() -> None:
    found = front()
    assert [row.candidate.name for row in found.rows] == ["vit_t", "vit_s", "vit_b"]
    assert [row.per_doubling for row in found.rows] == [0.0, 0.0, None]
    assert found.rows[0].on_front == 1
    assert found.rows[1].on_front > 0.99
    assert found.knee is not None
    assert found.knee[0].name == "vit_s"


def test_what_is_nearly_as_good_is_named_with_its_chance() -> None:
    (near,) = front().likely
    assert near.candidate.name == "conv_s"
    assert 0.3 < near.on_front < 0.5  # 0.1 behind, of a spread of 0.7


def test_attained_is_ordered_and_the_hypervolume_has_an_interval() -> None:
    found = front()
    for row in found.rows:
        assert list(row.attained) == sorted(row.attained)
    mean, (low, high) = found.hypervolume
    assert low < mean < high


def test_a_dominated_candidate_changes_nothing_but_the_count() -> None:
    without = front(pool=[each for each in priced() if each.candidate.name != "old"])
    assert without.rows == front().rows
    assert without.likely == front().likely


def test_the_order_of_candidates_changes_nothing() -> None:
    assert front(pool=priced()[::-1]).rows == front().rows


def test_without_a_cost_or_without_evidence_a_candidate_is_left_out_and_counted() -> None:
    pool = [*POOL, candidate("lost", gmacs=None), candidate("new", gmacs=30.0)]
    found = front(pool=price(pool, ["macs"], None, "luma", 150))
    assert found.num_candidates == 5
    assert found.notes == (
        "1 candidates left out: GFLOPs not known",
        "1 candidates left out: no evidence about their series; see luma next",
    )


def test_predicted_costs_lower_the_chance_of_the_one_that_they_favour() -> None:
    """Two equally good ones: the cheaper is on the front alone when costs are sure, and not when they overlap."""
    twins = [candidate("x"), candidate("y")]
    model = TableModel({each.timm_name: (46.0, 1e-6) for each in twins})

    def chances(one: Quantity, other: Quantity) -> list[float]:
        pool = [Priced(each, {"ms": cost}) for each, cost in zip(twins, (one, other), strict=True)]
        return [row.on_front for row in learned_front(QUESTION, "ms", pool, model).rows]

    sure = chances(Quantity("ms", 10, 10, 10, "measured"), Quantity("ms", 11, 11, 11, "measured"))
    unsure = chances(Quantity("ms", 10, 7, 14, "predicted"), Quantity("ms", 11, 8, 15, "predicted"))
    assert sure[0] == 1
    assert 0.7 < unsure[0] < 0.9


def test_no_candidate_no_cost_no_evidence() -> None:
    with pytest.raises(NoAnswer, match="leave out a filter"):
        front(pool=[])
    with pytest.raises(NoAnswer, match="luma profile"):
        learned_front(QUESTION, "ms", priced(), MODEL)
    with pytest.raises(NoAnswer, match="luma next --dataset ade20k"):
        learned_front(QUESTION, "macs", priced(), TableModel({}))


def test_own_runs_have_a_distance_to_the_front_at_their_cost() -> None:
    run = own_run(POOL[2], 44.0)
    found = front([OwnRow(run), OwnRow(run, ("recipe changed",))])
    (distance,) = found.own
    assert distance.below == pytest.approx(2.0)  # vit_s costs less and is expected to reach 46


def test_json_has_no_nan_and_text_fits_80_columns() -> None:
    run = own_run(POOL[2], 44.0)
    found = front([OwnRow(run)])
    said = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (said["schema"], said["axis"], len(said["front"])) == (1, "macs", 3)
    text = io.StringIO()
    draw(front_table(found), Console(file=text, width=80))
    assert max(map(len, text.getvalue().splitlines())) <= 80
    assert "vit_s" in text.getvalue()
    plain = io.StringIO()
    print_front(found, plain)
    assert "2.0 below the front (vit_s" in plain.getvalue()
    assert said["knee"]["candidate"]["backbone"].startswith("vit_s")
    assert said["hypervolume"]["reference"] == {"cost": 1e13, "miou": 37.4}
    assert "Knee" not in plain.getvalue()


def test_costs_of_several_origins_say_where_each_comes_from() -> None:
    speed = TableSpeed({"arch_vit_t": {"ms": 5.0}, "arch_vit_s": {"ms": (9.0, 7.0, 12.0)}})
    pool = price(POOL, ["ms"], speed, "luma", 150)
    text = io.StringIO()
    print_front(learned_front(QUESTION, "ms", pool, MODEL), text)
    assert "\tmeasured\t5\t" in text.getvalue()
    assert "\tpredicted\t~9\t" in text.getvalue()
    assert "3 candidates left out: latency not known" in text.getvalue()
