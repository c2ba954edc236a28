"""The recommendation: within budget, sure of its costs, honest about its chances, and the same whatever the order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from advise_world import TableModel, TableSpeed, candidate, result
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.accuracy.subjects import Subject
from luma_cli.advise import question as held
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.costs import price
from luma_cli.advise.question import Question, check_names
from luma_cli.advise.recommend import Recommendation, first_choices, recommendation
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.evidence.evidence import Evidence
from luma_cli.units import parse_budget

SMALL, BASE, LARGE = candidate("vit_s.dinov3", 40), candidate("vit_b.dinov3", 120), candidate("vit_l.dinov3", 390)
CONV = candidate("convnext_b.supervised_in21k", 110, family="convolutional", licence="apache-2.0")
CARDS = [SMALL, BASE, LARGE, CONV]
MIOUS = {SMALL.timm_name: (48.0, 0.5), BASE.timm_name: (54.0, 0.5), LARGE.timm_name: (58.0, 0.5),
         CONV.timm_name: (50.0, 0.5)}  # fmt: skip
MODEL = TableModel(MIOUS)
SPEED = TableSpeed(
    {
        SMALL.architecture: {"ms": 10.0, "fps": 100.0},
        BASE.architecture: {"ms": (18.0, 15.0, 22.0), "fps": (55.0, 45.0, 66.0)},
        CONV.architecture: {"ms": (12.0, 10.0, 14.0)},
    }
)


def ask(
    *budgets: str,
    candidates: Sequence[Candidate] = CARDS,
    model: TableModel = MODEL,
    speed: Any = None,
    evidence: Sequence[Evidence] = (),
    top: int = 3,
    with_reasons: bool = False,
    **asked: Any,
) -> Recommendation:
    convention = asked.get("convention", "mac")
    parsed = held.tightest(parse_budget(each, convention) for each in budgets)
    question = Question(**{"dataset": "ade20k", "budgets": parsed, **asked})
    pool = price(question.eligible(candidates), question.kinds, speed, question.head, 150, question.windows)
    return recommendation(question, pool, model, evidence=evidence, speed=speed, top=top, with_reasons=with_reasons)


def names(answer: Recommendation) -> list[str]:
    return [row.candidate.name for row in answer.rows]


class TestOrder:
    def test_best_within_budget_first_and_why(self) -> None:
        answer = ask("200gflops")
        assert names(answer) == ["vit_b.dinov3", "convnext_b.supervised_in21k", "vit_s.dinov3"]
        assert answer.rows[0].why == "3 results with other heads; 120 GFLOPs exact, 40% of 200gflops left"
        assert answer.rows[2].why == (
            "3 results with other heads; 40 GFLOPs exact, 80% of 200gflops left; "
            "6.0 mIoU behind the first at 0.33x its GFLOPs"
        )
        assert (answer.rows[0].best, answer.rows[0].better, answer.rows[1].better) == (1.0, None, 0.0)
        assert (answer.num_direct, answer.num_within_budget) == (3, 3)
        assert answer.command == "luma train vit_b.dinov3 --data ade20k --res 512"

    def test_of_a_tie_the_cheaper_wins(self) -> None:
        near = candidate("beit_b.beit", 100)
        model = TableModel({**MIOUS, near.timm_name: (53.9, 0.5)})
        answer = ask("200gflops", candidates=[*CARDS, near], model=model)
        assert names(answer)[:2] == ["beit_b.beit", "vit_b.dinov3"]
        assert [row.tie for row in answer.rows] == [False, True, False]
        assert answer.rows[1].why.endswith("ties with the first, 0.1 mIoU above the first at 1.2x its GFLOPs")
        assert 0.35 < (answer.rows[1].better or 0) < 0.65

    def test_direct_evidence_decides_a_tie_and_an_own_run_before_it(self) -> None:
        near = candidate("beit_b.beit", 100)
        table = {**MIOUS, near.timm_name: (54.0, 0.5)}
        by_series = TableModel(table, relations={near.timm_name: "same series"})
        assert names(ask("200gflops", candidates=[*CARDS, near], model=by_series))[0] == "vit_b.dinov3"
        own = TableModel(table, own=frozenset({BASE.timm_name}))
        answer = ask("200gflops", candidates=[*CARDS, near], model=own)
        assert names(answer)[0] == "vit_b.dinov3"
        assert answer.rows[0].prediction.support.standing == "own run"

    def test_a_model_of_the_series_that_is_surely_better_comes_before_direct_evidence(self) -> None:
        near = candidate("beit_b.beit", 100)
        model = TableModel({**MIOUS, near.timm_name: (56.0, 0.5)}, relations={near.timm_name: "same series"})
        assert names(ask("200gflops", candidates=[*CARDS, near], model=model))[0] == "beit_b.beit"

    def test_a_wide_guess_does_not_hide_a_measured_model_behind_a_third(self) -> None:
        """The narrow one of a series is likely better than the measured one, but hardly than the wide, cheaper one."""
        wide, narrow = candidate("beit_b.beit", 90), candidate("deit_b.deit", 110)
        table = {**MIOUS, wide.timm_name: (54.0, 4.0), narrow.timm_name: (54.6, 0.3)}
        model = TableModel(table, relations={wide.timm_name: "same series", narrow.timm_name: "same series"})
        answer = ask("200gflops", candidates=[*CARDS, wide, narrow], model=model)
        assert names(answer) == ["vit_b.dinov3", "deit_b.deit", "beit_b.beit"]
        assert 0.65 < (answer.rows[1].better or 0) < 0.9
        assert (answer.rows[1].likely_better, answer.rows[2].likely_better) == (True, False)

    def test_an_extrapolation_stands_beside_the_answer_never_in_it(self) -> None:
        guess = candidate("radio_b.radio", 100)
        model = TableModel({**MIOUS, guess.timm_name: (55.0, 4.0)}, outside=frozenset({guess.timm_name}))
        answer = ask("200gflops", candidates=[*CARDS, guess], model=model, top=99)
        assert guess.name not in names(answer)
        assert answer.untested
        assert answer.untested.candidate == guess
        assert 0.5 < (answer.untested.better or 0) < 0.7
        hopeless = TableModel({**MIOUS, guess.timm_name: (45.0, 1.0)}, outside=frozenset({guess.timm_name}))
        assert ask("200gflops", candidates=[*CARDS, guess], model=hopeless).untested is None

    def test_without_anything_else_an_extrapolation_is_the_answer_and_says_so(self) -> None:
        model = TableModel({BASE.timm_name: (54.0, 0.5)}, outside=frozenset({BASE.timm_name}))
        answer = ask("200gflops", candidates=[BASE], model=model)
        assert names(answer) == ["vit_b.dinov3"]
        assert answer.rows[0].prediction.extrapolated
        assert (answer.num_direct, answer.untested) == (0, None)

    def test_every_row_is_of_other_weights(self) -> None:
        larger = replace(BASE, resolution=640, macs=int(190e9))
        answer = ask("200gflops", candidates=[*CARDS, larger])
        assert names(answer) == ["vit_b.dinov3", "convnext_b.supervised_in21k", "vit_s.dinov3"]
        assert answer.rows[0].candidate.resolution == 512

    def test_without_a_budget_the_best_of_all(self) -> None:
        answer = ask()
        assert names(answer)[0] == "vit_l.dinov3"
        assert (answer.binding, answer.price) == (None, None)


class TestObjectives:
    def test_miou_per_ms(self) -> None:
        answer = ask(objective="miou-per-ms", speed=SPEED)
        assert names(answer)[0] == "vit_s.dinov3"
        assert 0.7 < (answer.rows[0].best or 0) < 0.95  # 10 ms is measured, 12 ms of the next only predicted
        assert "vit_l.dinov3" not in names(answer)  # its latency is not known

    def test_the_knee_is_where_the_front_bends(self) -> None:
        answer = ask(objective="knee")
        assert names(answer)[0] == "vit_b.dinov3"
        assert (answer.rows[0].best or 0) > 0.9

    def test_a_front_without_a_knee_falls_back_on_miou(self) -> None:
        answer = ask(objective="knee", candidates=[BASE, LARGE])
        assert names(answer)[0] == "vit_l.dinov3"


class TestBudgets:
    def test_the_limit_itself_is_within(self) -> None:
        assert names(ask("120gflops"))[0] == "vit_b.dinov3"
        assert names(ask("119.9gflops"))[0] == "convnext_b.supervised_in21k"

    def test_convention_doubles_what_a_budget_counts(self) -> None:
        answer = ask("200gflops", convention="2x")
        assert names(answer) == ["vit_s.dinov3"]
        assert "80 GFLOPs" in answer.rows[0].why

    def test_several_bind_and_the_one_with_least_slack_is_named(self) -> None:
        thin = replace(CONV, params=20_000_000)
        answer = ask("200gflops", "21Mparams", candidates=[SMALL, BASE, thin])
        assert names(answer) == ["convnext_b.supervised_in21k"]
        assert answer.binding
        assert answer.binding.text == "21Mparams"

    def test_of_two_in_one_unit_the_tighter_binds(self) -> None:
        answer = ask("200gflops", "0.05tmacs")
        assert [budget.text for budget in answer.question.budgets] == ["0.05tmacs"]

    def test_nothing_meets_it_and_the_nearest_is_named(self) -> None:
        with pytest.raises(NoAnswer, match=r"nothing meets 5gflops: the cheapest candidate is vit_s.dinov3 at 512 px"):
            ask("5gflops")

    def test_budgets_that_only_fail_together_say_so(self) -> None:
        big, light = replace(SMALL, params=90_000_000), replace(LARGE, params=10_000_000)
        with pytest.raises(NoAnswer, match=r"together: within 50gflops the cheapest candidate is vit_s.dinov3 .* 90 M"):
            ask("50gflops", "20Mparams", candidates=[big, light])

    def test_a_lower_bound_never_meets_a_budget(self) -> None:
        answer = ask("200gflops", candidates=[SMALL, replace(BASE, macs=None)])
        assert names(answer) == ["vit_s.dinov3"]
        assert any("known only as a lower bound" in note for note in answer.notes)

    def test_without_public_weights_never_recommended(self) -> None:
        answer = ask("200gflops", candidates=[SMALL, replace(BASE, public_weights=False)])
        assert names(answer) == ["vit_s.dinov3"]


class TestPredictedCosts:
    def test_the_dear_end_must_fit(self) -> None:
        answer = ask("20ms", speed=SPEED)
        assert names(answer) == ["convnext_b.supervised_in21k", "vit_s.dinov3"]
        assert [row.candidate.name for row in answer.may_exceed.rows] == ["vit_b.dinov3"]
        assert "18 ms predicted (80%: 15 to 22), may not meet 20ms" in answer.may_exceed.rows[0].why
        assert "12 ms predicted (80%: 10 to 14), at least 30% of 20ms left" in answer.rows[0].why
        assert "10 ms measured, 50% of 20ms left" in answer.rows[1].why

    def test_of_a_rate_the_slow_end_must_fit(self) -> None:
        answer = ask("50fps", speed=SPEED)
        assert names(answer) == ["vit_s.dinov3"]
        assert "100 fps measured, 100% above 50fps" in answer.rows[0].why
        assert answer.may_exceed.count == 1

    def test_nothing_that_surely_fits_is_no_recommendation(self) -> None:
        answer = ask("20ms", candidates=[BASE], speed=SPEED)
        assert (answer.rows, answer.may_exceed.count, answer.num_within_budget) == ((), 1, 0)

    def test_a_kind_that_nothing_is_known_of_says_what_is_missing(self) -> None:
        with pytest.raises(NoAnswer, match=r"5J cannot be answered: joules was not measured on any device; run: luma"):
            ask("5J", speed=SPEED)


class TestEvidence:
    def test_a_family_without_evidence_is_proposed_and_never_recommended(self) -> None:
        unseen = candidate("swin_t.supervised_in1k", 60)
        answer = ask("200gflops", candidates=[*CARDS, unseen])
        assert unseen.name not in names(answer)
        assert answer.unsupported.count == 1
        assert "no result of its series on this dataset; extrapolated: " in answer.unsupported.rows[0].why

    def test_no_evidence_at_all_recommends_nothing(self) -> None:
        answer = ask("200gflops", model=TableModel({}))
        assert answer.rows == ()
        assert answer.unsupported.count == 3

    def test_reasons_name_effects_and_the_nearest_rows(self) -> None:
        rows = [result(BASE, 54.0, 1), result(BASE, 55.0, 2)]
        model = replace(MODEL, ids=("row-2", "row-9"))
        answer = ask("200gflops", model=model, evidence=rows, with_reasons=True)
        reasons = answer.rows[0].reasons
        assert reasons
        assert [effect.name for effect in reasons.effects] == ["pretraining dinov3", "size"]
        assert [found.id for found in reasons.evidence] == ["row-2"]
        assert ask("200gflops").rows[0].reasons is None


class TestPrice:
    def test_twice_the_binding_budget(self) -> None:
        price = ask("200gflops").price
        assert price
        assert (price.candidate.name, price.points) == ("vit_l.dinov3", 4.0)
        assert 2.5 < price.interval_80[0] < 4.0 < price.interval_80[1] < 5.5

    def test_nothing_more_to_buy(self) -> None:
        price = ask("400gflops").price
        assert price
        assert (price.points, price.interval_80) == (0.0, (0.0, 0.0))

    def test_half_of_a_rate(self) -> None:
        price = ask("90fps", speed=SPEED).price
        assert price
        assert (price.budget.limit, price.candidate.name, price.points) == (45.0, "vit_b.dinov3", 6.0)


class TestFilters:
    def test_each_of_them(self) -> None:
        assert names(ask("200gflops", families=frozenset({"convolutional"}))) == ["convnext_b.supervised_in21k"]
        assert "convnext_b.supervised_in21k" not in names(ask("200gflops", pretrainings=frozenset({"dinov3"})))
        assert names(ask("200gflops", licences=frozenset({"apache-2.0"}))) == ["convnext_b.supervised_in21k"]
        assert names(ask("200gflops", top=1)) == ["vit_b.dinov3"]

    def test_nothing_is_left(self) -> None:
        with pytest.raises(NoAnswer, match="weights at 640 px of family moe; leave out a filter"):
            ask("200gflops", resolutions=(640,), families=frozenset({"moe"}))

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            ("families", "--family 'x' is not known, expected one of isotropic, "),
            ("pretrainings", "--pretraining 'x' is not known, expected one of dinov3, supervised_in21k"),
            ("licences", "--license 'x' is not known, expected one of apache-2.0"),
        ],
    )
    def test_a_name_that_is_none_lists_those_that_are(self, field: str, message: str) -> None:
        with pytest.raises(UsageError) as error:
            check_names(Question("ade20k", **{field: frozenset({"x"})}), CARDS)
        assert str(error.value).startswith(message)

    def test_top_is_at_least_one(self) -> None:
        with pytest.raises(UsageError, match="top is 0"):
            ask("200gflops", top=0)


def test_json_holds_schema_three_and_no_nan() -> None:
    answer = ask("200gflops", "60Mparams", with_reasons=True)
    read = json.loads(json.dumps(answer.to_json(), allow_nan=False))
    first = read["recommendations"][0]
    assert read["schema"] == 3
    assert (first["backbone"], first["miou"], first["evidence"]) == ("vit_b.dinov3", 54.0, "3 results with other heads")
    assert first["costs"]["macs"]["left"] == pytest.approx(0.4)
    assert (first["costs"]["macs"]["source"], read["binding_budget"]) == ("exact", "60Mparams")
    assert (first["standing"], first["commercial"]) == ("same weights", False)
    assert first["macs_per_image"] == pytest.approx(1.83 * 120e9)
    assert first["effects"][0] == {"name": "pretraining dinov3", "points": 2.5, "sd_points": 0.4}


POINT = st.tuples(st.integers(1, 400), st.integers(1, 9), st.one_of(st.none(), st.integers(300, 600)), st.booleans())
WORLD = st.lists(POINT, min_size=1, max_size=8)


def world(points: Sequence[tuple[int, int, int | None, bool]]) -> tuple[list[Candidate], TableModel, TableSpeed]:
    """Cards by GMACs and latency; some without evidence, the latency of some only predicted."""
    cards = [candidate(f"m{number}_x", gmacs) for number, (gmacs, _, _, _) in enumerate(points)]
    pairs = list(zip(cards, points, strict=True))
    latency = {card.architecture: {"ms": (10.0 * ms, 8.0 * ms, 13.0 * ms) if predicted else 10.0 * ms}
               for card, (_, ms, _, predicted) in pairs}  # fmt: skip
    table = {card.timm_name: (miou / 10, 0.8) for card, (_, _, miou, _) in pairs if miou}
    return cards, TableModel(table), TableSpeed(latency)  # type: ignore[arg-type]


@given(WORLD, st.integers(1, 400), st.integers(1, 9), st.randoms())
def test_never_beyond_budget_and_always_the_same(points: Any, gmacs: int, ms: int, random: Any) -> None:
    cards, model, speed = world(points)
    budgets = (f"{gmacs}gmacs", f"{ms * 10}ms")
    try:
        answer = ask(*budgets, candidates=cards, model=model, speed=speed, top=99)
    except NoAnswer:
        assert not any(gmacs >= g and ms >= m for g, m, _, _ in points)
        return
    for row in (*answer.rows, *answer.unsupported.rows):
        assert row.priced.costs["macs"].value <= gmacs * 1e9
        cost = row.priced.costs["ms"]
        assert (cost.value if cost.origin == "measured" else cost.high) <= ms * 10
    assert all(row.candidate.timm_name in model.table for row in answer.rows)
    shuffled = random.sample(cards, len(cards))
    again = ask(*budgets, candidates=shuffled, model=model, speed=speed, top=99)
    assert again.to_json() == answer.to_json()


@given(WORLD, st.integers(0, 50), st.integers(1, 50))
def test_a_dominated_candidate_changes_nothing(points: Any, dearer: int, worse: int) -> None:
    cards, model, _ = world(points)
    if not model.table:
        return
    name = max(model.table, key=lambda each: model.table[each])
    better = next(card for card in cards if card.timm_name == name)
    loser = candidate("loser_x", (better.macs or 0) / 1e9 + dearer)

    class Added(TableModel):
        """Knows the loser as the better one's mIoU less something, in every draw."""

        def draws(self, subjects: Sequence[Subject], num_draws: int = 2000, seed: int = 0) -> Any:
            stood_in = [replace(each, backbone=name) if each.backbone == loser.timm_name else each for each in subjects]
            less = [worse / 10 if each.backbone == loser.timm_name else 0.0 for each in subjects]
            return TableModel.draws(self, stood_in, num_draws, seed) - np.asarray(less)

    miou, sd = model.table[name]
    added = Added({**model.table, loser.timm_name: (miou - worse / 10, sd)})
    before = ask("1000gmacs", candidates=cards, model=model, top=99)
    after = ask("1000gmacs", candidates=[*cards, loser], model=added, top=99)
    assert [row.candidate for row in after.rows if row.candidate != loser] == [row.candidate for row in before.rows]
    assert after.rows[0] == before.rows[0]
    assert after.num_direct == before.num_direct + 1


@given(WORLD, st.lists(st.integers(1, 400), min_size=2, max_size=6, unique=True))
def test_a_wider_budget_never_goes_back_to_an_earlier_answer(points: Any, limits: list[int]) -> None:
    cards, model, _ = world(points)
    pool = price(cards, ("macs",), None, "luma", 150)
    budgets = [parse_budget(f"{limit}gmacs") for limit in sorted(limits)]
    found = first_choices(Question("ade20k"), sorted(pool, key=lambda each: each.candidate.key), model, budgets)
    left = [each.candidate.name for each in found if each is not None]
    changes = [name for at, name in enumerate(left) if at == 0 or name != left[at - 1]]
    assert len(changes) == len(set(changes))
    for budget, first in zip(budgets, found, strict=True):
        try:
            alone = ask(budget.text, candidates=cards, model=model).rows[:1]
        except NoAnswer:
            alone = ()
        assert [row.candidate for row in alone] == ([] if first is None else [first.candidate])


class TestImages:
    """Costs of whole images: windows of the image's size, or of the dataset's own protocol."""

    def test_a_budget_per_image_counts_every_window(self) -> None:
        assert names(ask("219gflops/image"))[0] == "convnext_b.supervised_in21k"  # 120 GFLOPs x 1.83 windows are 219.6
        assert names(ask("220gflops/image"))[0] == "vit_b.dinov3"
        wide = ask("300gflops/image", image=(512, 2048))  # four windows
        assert names(wide) == ["vit_s.dinov3"]
        assert wide.rows[0].windows == 4
        assert wide.rows[0].priced.costs["macs_image"].value == 4 * 40e9

    def test_rates_are_of_images_where_an_image_is_named(self) -> None:
        assert names(ask("90fps", speed=SPEED)) == ["vit_s.dinov3"]
        image = ask("45fps", speed=SPEED, image=(512, 1024))  # two windows
        assert image.question.kinds == ("fps_image",)
        assert image.rows[0].priced.costs["fps_image"].value == 50.0
        with pytest.raises(NoAnswer, match="nothing meets 60fps: the fastest candidate is vit_s.dinov3"):
            ask("60fps", speed=SPEED, image=(512, 1024))

    def test_budgets_of_which_one_never_binds(self) -> None:
        with pytest.raises(UsageError, match="200gflops of a crop and 100gflops/image: .* leave it out"):
            ask("200gflops", "100gflops/image")
