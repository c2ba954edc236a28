"""The recommendation: within budget, on one scale, deterministic, and honest about what is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from advise_world import candidate, conditions, measured, result
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.advise.answer import Recommendation
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.recommend import recommend
from luma_cli.errors import BadBudget, NoAnswer, UsageError
from luma_cli.evidence.evidence import Evidence

SMALL, BASE, LARGE = candidate("vit_s.dinov3", 40), candidate("vit_b.dinov3", 120), candidate("vit_l.dinov3", 390)
CONV = candidate("convnext_b.supervised_in21k", 110, family="convolutional")
CARDS = [SMALL, BASE, LARGE, CONV]
RESULTS = [result(SMALL, 48.0, 1), result(BASE, 54.0, 2), result(LARGE, 58.0, 3), result(CONV, 50.0, 4)]


def ask(
    *budgets: str, candidates: list[Candidate] = CARDS, evidence: list[Evidence] = RESULTS, **rest: Any
) -> Recommendation:
    return recommend(budgets, candidates=candidates, evidence=evidence, **rest)


def names(answer: Recommendation) -> list[str]:
    return [row.candidate.name for row in answer.rows]


def test_best_within_budget_first_and_why() -> None:
    answer = ask("200gflops")
    assert names(answer) == ["vit_b.dinov3", "convnext_b.supervised_in21k", "vit_s.dinov3"]
    assert answer.rows[0].why == "54.0 mIoU measured at 512x512 (paper 2); 120 GFLOPs, 40% of 200gflops left"
    assert answer.rows[2].why == (
        "48.0 mIoU measured at 512x512 (paper 1); 40 GFLOPs, 80% of 200gflops left; "
        "6.0 mIoU behind the first at 0.33x its GFLOPs"
    )
    assert answer.scale
    assert answer.scale.label == "UPerNet, fine-tuned, single-scale, ADE20K val"
    assert answer.notes[0].endswith("no LUMA run seen")


def test_dominated_are_left_out_and_counted() -> None:
    worse = candidate("swin_b.supervised_in1k", 130)
    answer = ask("200gflops", candidates=[*CARDS, worse], evidence=[*RESULTS, result(worse, 53.0, 5)])
    assert "swin_b.supervised_in1k" not in names(answer)
    assert answer.num_dominated == 1


def test_equal_candidates_are_shown_as_a_tie() -> None:
    twin = candidate("beit_b.beit", 120)
    answer = ask("200gflops", candidates=[*CARDS, twin], evidence=[*RESULTS, result(twin, 54.0, 5)])
    assert names(answer)[:2] == ["beit_b.beit", "vit_b.dinov3"]
    assert [row.tie for row in answer.rows] == [False, True, False, False]
    assert "within seed noise of the first" in answer.rows[1].why


def test_the_limit_itself_is_within_budget() -> None:
    assert names(ask("120gflops"))[0] == "vit_b.dinov3"
    assert names(ask("119.9gflops"))[0] == "convnext_b.supervised_in21k"


def test_convention_doubles_what_a_budget_counts() -> None:
    assert names(ask("200gflops", convention="2x")) == ["vit_s.dinov3"]
    assert "80 GFLOPs" in ask("200gflops", convention="2x").rows[0].why


def test_several_budgets_bind() -> None:
    thin = replace(CONV, params=20_000_000)
    answer = ask("200gflops", "30Mparams", candidates=[SMALL, BASE, thin])
    assert names(answer) == ["convnext_b.supervised_in21k"]
    assert "20 M parameters, 33% of 30Mparams left" in answer.rows[0].why


def test_of_two_budgets_in_one_unit_the_tighter_binds() -> None:
    answer = ask("200gflops", "0.05tmacs")
    assert names(answer) == ["vit_s.dinov3"]
    assert [budget.text for budget in answer.budgets] == ["0.05tmacs"]
    assert "20% of 0.05tmacs left" in answer.rows[0].why


def test_a_device_that_no_budget_needs_is_said_to_be_unused() -> None:
    assert any("device cpu is not used" in note for note in ask("200gflops", device="cpu").notes)


def test_nothing_meets_the_budget_names_the_cheapest() -> None:
    with pytest.raises(
        NoAnswer, match=r"nothing meets 5gflops: the cheapest candidate is vit_s.dinov3 at 512 px with 40 GFLOPs"
    ):
        ask("5gflops")


def test_budgets_that_only_fail_together_say_so() -> None:
    big = replace(SMALL, params=90_000_000)
    light = replace(LARGE, params=10_000_000)
    with pytest.raises(
        NoAnswer, match=r"together: within 50gflops the cheapest candidate is vit_s.dinov3 .* 90 M parameters"
    ):
        ask("50gflops", "20Mparams", candidates=[big, light])


def test_a_lower_bound_never_meets_a_budget() -> None:
    unknown = replace(BASE, macs=None)
    answer = ask("200gflops", candidates=[SMALL, unknown])
    assert names(answer) == ["vit_s.dinov3"]
    assert any("only known as a lower bound" in note for note in answer.notes)


def test_without_public_weights_never_recommended() -> None:
    hidden = replace(BASE, public_weights=False)
    answer = ask("200gflops", candidates=[SMALL, hidden])
    assert names(answer) == ["vit_s.dinov3"]
    assert answer.num_within_budget == 1


def test_candidates_without_evidence_are_marked_and_counted() -> None:
    unseen, resized = candidate("swin_t.supervised_in1k", 60), replace(BASE, resolution=640, macs=180_000_000_000)
    answer = ask("200gflops", candidates=[*CARDS, unseen, resized])
    assert answer.num_without_evidence == 2
    assert [row.candidate for row in answer.without_evidence] == [resized, unseen]
    assert "no evidence at 640 px; 54.0 mIoU was measured at 512x512" in answer.without_evidence[0].why
    assert all(not row.evidence for row in answer.without_evidence)


def test_no_accuracy_evidence_ranks_by_size_and_says_so() -> None:
    answer = ask("200gflops", evidence=[])
    assert answer.ranked_by == "macs"
    assert answer.scale is None
    assert names(answer) == ["vit_b.dinov3", "convnext_b.supervised_in21k", "vit_s.dinov3"]
    assert all(row.why.startswith("no accuracy evidence") for row in answer.rows)
    assert "ranked by GMACs" in answer.notes[0]


class TestScales:
    def test_two_heads_are_never_ranked_together(self) -> None:
        mixed = [RESULTS[0], result(BASE, 44.0, 2, head="segformer"), result(CONV, 46.0, 3, head="segformer")]
        answer = ask("200gflops", evidence=mixed)
        assert names(answer) == ["convnext_b.supervised_in21k"]
        assert {ranking.scale.head for ranking in answer.other_scales} == {"upernet"}
        for row in answer.rows:
            assert {found.head for found in row.evidence} == {"segformer"}

    def test_eomt_is_preferred_once_it_orders_anything(self) -> None:
        eomt = [result(SMALL, 46.0, 10, head="eomt"), result(BASE, 55.0, 11, head="eomt")]
        assert ask("200gflops", evidence=[*RESULTS, eomt[0]]).scale.head == "upernet"  # type: ignore[union-attr]
        answer = ask("200gflops", evidence=[*RESULTS, *eomt])
        assert answer.scale
        assert answer.scale.head == "eomt"
        assert names(answer) == ["vit_b.dinov3", "vit_s.dinov3"]

    def test_a_doubtful_figure_does_not_make_a_scale(self) -> None:
        eomt = [result(SMALL, 40.0, 10, head="eomt", doubtful="odd"), result(BASE, 55.0, 11, head="eomt")]
        answer = ask("200gflops", evidence=[*RESULTS, *eomt])
        assert answer.scale
        assert answer.scale.head == "upernet"
        assert "doubtful: odd" in answer.other_scales[0].rows[1].why

    def test_own_runs_come_first(self) -> None:
        own = [
            result(SMALL, 50.0, 20, provenance="own run", head="luma"),
            result(BASE, 53.0, 21, provenance="own run", head="luma"),
        ]
        answer = ask("200gflops", own=own)
        assert answer.scale
        assert answer.scale.head == "luma"
        assert [found.id for found in answer.rows[0].evidence] == ["row-21"]
        assert "no LUMA run seen" not in answer.notes[0]

    def test_frozen_probes_come_last_and_stay_within_their_source(self) -> None:
        frozen = [result(each, 40.0 + number, number, head="linear", regime="frozen", source=source)
                  for number, (each, source) in enumerate([(SMALL, "a"), (BASE, "b"), (CONV, "b")])]  # fmt: skip
        assert ask("200gflops", evidence=[*RESULTS, *frozen]).scale.regime == "fine-tuned"  # type: ignore[union-attr]
        alone = ask("200gflops", evidence=frozen)
        assert alone.scale
        assert alone.scale.recipe == "b"
        assert "vit_s.dinov3" not in names(alone)

    def test_other_datasets_are_not_evidence(self) -> None:
        assert ask("200gflops", dataset="cityscapes").ranked_by == "macs"


class TestLookup:
    def test_mean_of_agreeing_results_with_their_range(self) -> None:
        answer = ask("200gflops", evidence=[result(BASE, 54.0, 1), result(BASE, 55.0, 2, source="paper 1"), RESULTS[0]])
        row = answer.rows[0]
        assert row.prediction
        assert (row.prediction.miou_percent, row.prediction.low, row.prediction.high) == (54.5, 54.0, 55.0)
        assert row.why.startswith("54.5 mIoU, mean of 2 results at 512x512 (54.0 to 55.0, paper 1)")

    def test_the_surest_protocol_decides_and_lesser_ones_are_marked(self) -> None:
        inferred = result(BASE, 57.0, 1, trust="inferred")
        both = ask("200gflops", evidence=[inferred, result(BASE, 54.0, 2)])
        assert [found.id for found in both.rows[0].evidence] == ["row-2"]
        assert "part of its protocol is inferred" in ask("200gflops", evidence=[inferred]).rows[0].why

    def test_a_shorter_schedule_gives_way_to_a_longer_one(self) -> None:
        schedules = ["80000 iters", "160000 iters", ""]
        results = [result(BASE, 50.0 + each, each, schedule=schedules[each]) for each in range(3)]
        assert [found.id for found in ask("200gflops", evidence=results).rows[0].evidence] == ["row-1", "row-2"]

    def test_doubtful_figures_give_way(self) -> None:
        answer = ask("200gflops", evidence=[result(BASE, 30.0, 1, doubtful="odd"), result(BASE, 54.0, 2)])
        assert [found.id for found in answer.rows[0].evidence] == ["row-2"]

    def test_further_labelled_data_supports_nothing(self) -> None:
        answer = ask("200gflops", evidence=[result(BASE, 60.0, 1, extra_data="COCO"), *RESULTS])
        assert "60.0" not in json.dumps(answer.to_json())

    def test_other_weights_of_the_same_objective_are_named(self) -> None:
        other = result(CONV, 51.0, 1, timm="arch_convnext_b.other", backbone="arch_convnext_b.other")
        answer = ask("200gflops", evidence=[other])
        assert "measured with weights named arch_convnext_b.other, not with these" in answer.rows[0].why

    def test_another_objective_is_no_evidence(self) -> None:
        mae = result(BASE, 51.0, 1, timm="arch_vit_b.mae", pretraining="mae")
        assert ask("200gflops", evidence=[mae]).ranked_by == "macs"

    def test_almost_the_same_crop_stands_for_a_size_and_says_so(self) -> None:
        answer = ask("200gflops", evidence=[result(BASE, 54.0, 1, height=518, width=518)])
        assert "crops of 518x518 stand for 512x512" in answer.rows[0].why
        assert ask("200gflops", evidence=[result(BASE, 54.0, 1, height=640, width=640)]).ranked_by == "macs"

    def test_the_exact_crop_is_preferred(self) -> None:
        both = [result(BASE, 57.0, 1, height=518, width=518), result(BASE, 54.0, 2)]
        assert [found.id for found in ask("200gflops", evidence=both).rows[0].evidence] == ["row-2"]


class TestMeasured:
    ROWS = [measured("arch_vit_s", 12.0), measured("arch_vit_b.any_tag", 30.0), measured("test_vit", 3.0, 160)]

    def test_nothing_measured_prints_the_command(self) -> None:
        with pytest.raises(NoAnswer, match=r"20ms cannot be answered; run: luma profile .*vit_b.dinov3.* --res 512$"):
            ask("20ms")

    def test_the_command_names_the_device_and_respects_countable_budgets(self) -> None:
        with pytest.raises(NoAnswer) as nothing:
            ask("20ms", "100gflops", device="cuda", measured=self.ROWS)
        assert "nothing was measured on cuda" in str(nothing.value)
        assert str(nothing.value).endswith("luma profile vit_s.dinov3 --res 512 --device cuda")

    def test_measured_latency_holds_for_every_pretraining_of_the_architecture(self) -> None:
        mae = replace(SMALL, name="vit_s.mae", timm_name="arch_vit_s.mae", pretraining="mae")
        answer = ask("20ms", candidates=[*CARDS, mae], evidence=[*RESULTS, result(mae, 45.0, 9)], measured=self.ROWS)
        assert names(answer) == ["vit_s.dinov3"]
        assert answer.num_dominated == 1
        assert answer.num_within_budget == 3
        assert "12 ms, 40% of 20ms left" in answer.rows[0].why
        assert answer.conditions == conditions()

    def test_models_without_a_card_count_when_measured(self) -> None:
        answer = ask("500ms", "1Gparams", candidates=[], evidence=[], measured=self.ROWS)
        assert set(names(answer)) == {"arch_vit_s", "arch_vit_b.any_tag", "test_vit"}
        assert answer.ranked_by == "macs"

    def test_a_card_without_public_weights_does_not_come_back_as_uncarded(self) -> None:
        with pytest.raises(NoAnswer, match="no candidate with public weights"):
            ask("20ms", candidates=[replace(SMALL, public_weights=False)], measured=[measured("arch_vit_s")])

    def test_a_size_outside_the_cost_table_counts_when_measured(self) -> None:
        answer = ask("20ms", candidates=[SMALL], measured=[measured("arch_vit_s", resolution=96)])
        assert [(row.candidate.name, row.candidate.resolution, row.candidate.macs) for row in answer.rows] == [
            ("vit_s.dinov3", 96, 10_000_000_000)
        ]

    def test_two_devices_must_be_told_apart(self) -> None:
        rows = [
            measured("arch_vit_s"),
            measured("arch_vit_b", conditions=conditions(device="cuda", device_name="GPU X")),
        ]
        with pytest.raises(UsageError, match="measured on 2 devices .GPU X, Test CPU"):
            ask("20ms", measured=rows)
        assert names(ask("20ms", measured=rows, device="gpu x")) == ["vit_b.dinov3"]
        assert names(ask("20ms", measured=rows, device="cpu")) == ["vit_s.dinov3"]

    def test_conditions_are_never_mixed(self) -> None:
        fast = measured("arch_vit_l", 1.0, conditions=conditions(dtype="bfloat16"))
        answer = ask("40ms", measured=[*self.ROWS, fast])
        assert "vit_l.dinov3" not in names(answer)
        assert any("1 rows measured under other conditions" in note for note in answer.notes)

    def test_flagged_rows_are_left_out_and_said(self) -> None:
        answer = ask("40ms", measured=[*self.ROWS, measured("arch_vit_l", 1.0, flags=("throttled",))])
        assert "vit_l.dinov3" not in names(answer)
        assert "1 rows flagged throttled were left out; repeat them with --again" in answer.notes

    def test_the_latest_row_counts(self) -> None:
        again = measured("arch_vit_s", 25.0, started_at="2026-02-01T00:00:00Z")
        with pytest.raises(NoAnswer, match=r"vit_s.dinov3 at 512 px with 25 ms"):
            ask("20ms", candidates=[SMALL], measured=[again, measured("arch_vit_s", 12.0)])

    def test_rates_are_floors(self) -> None:
        answer = ask("50fps", measured=self.ROWS)
        assert "83.33 fps, 67% above 50fps" in answer.rows[0].why
        with pytest.raises(NoAnswer, match="the fastest candidate is test_vit at 160 px with 333.3 fps"):
            ask("1000fps", measured=self.ROWS)

    @pytest.mark.parametrize("budget", ["99img/s", "1.1GiB", "2J"])
    def test_rate_memory_and_energy(self, budget: str) -> None:
        assert names(ask(budget, measured=self.ROWS))[0] == "vit_b.dinov3"

    def test_what_was_not_measured_meets_no_budget(self) -> None:
        row = measured("arch_vit_s", energy_joules=None)
        with pytest.raises(NoAnswer, match="5J: energy is not known of any candidate"):
            ask("5J", measured=[row])

    def test_other_number_of_classes_is_said(self) -> None:
        notes = ask("20ms", dataset="cityscapes", measured=self.ROWS).notes
        assert "measured with 150 classes, cityscapes has 19" in notes


@pytest.mark.parametrize("budget", ["200", "200 bananas", "-5ms", "0gflops"])
def test_junk_budgets(budget: str) -> None:
    with pytest.raises(BadBudget):
        ask(budget)


@pytest.mark.parametrize("wrong", [{"dataset": "coco"}, {"families": ["cnn"]}, {"top": 0}])
def test_junk_filters(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ask("200gflops", **wrong)


def test_filters() -> None:
    assert names(ask("200gflops", families=["convolutional"])) == ["convnext_b.supervised_in21k"]
    assert names(ask("200gflops", top=1)) == ["vit_b.dinov3"]
    with pytest.raises(NoAnswer, match="at 640 px in family moe"):
        ask("200gflops", resolutions=[640], families=["moe"])


def test_json_holds_schema_one_and_no_nan() -> None:
    answer = ask("200gflops", "60Mparams")
    text = json.dumps(answer.to_json(), allow_nan=False)
    read = json.loads(text)
    assert read["schema"] == 1
    first = read["recommendations"][0]
    assert first["backbone"] == "vit_b.dinov3"
    assert first["costs"]["macs"] == {"value": 120e9, "limit": 200e9, "source": "exact", "fingerprint": None}
    assert first["evidence"][0]["source"] == "paper 2"
    assert read["scale"]["head"] == "upernet"


WORLD = st.lists(
    st.tuples(st.integers(1, 400), st.integers(1, 9), st.one_of(st.none(), st.integers(300, 600))),
    min_size=1,
    max_size=12,
)


def world(points: list[tuple[int, int, int | None]]) -> tuple[list[Candidate], list[Evidence]]:
    cards = [
        candidate(f"m{number}_x", gmacs, params=params * 10_000_000) for number, (gmacs, params, _) in enumerate(points)
    ]
    pairs = zip(cards, points, strict=True)
    return cards, [result(card, miou / 10, number) for number, (card, (_, _, miou)) in enumerate(pairs) if miou]


@given(WORLD, st.integers(1, 400), st.integers(1, 9))
def test_never_beyond_budget_and_always_the_same(
    points: list[tuple[int, int, int | None]], gmacs: int, params: int
) -> None:
    cards, results = world(points)
    budgets = (f"{gmacs}gmacs", f"{params * 10}Mparams")
    feasible = [card for card in cards if card.macs <= gmacs * 1e9 and card.params <= params * 1e7]  # type: ignore[operator]
    if not feasible:
        with pytest.raises(NoAnswer):
            ask(*budgets, candidates=cards, evidence=results)
        return
    answer = ask(*budgets, candidates=cards, evidence=results, top=99)
    shown = [row.candidate for row in (*answer.rows, *answer.without_evidence)]
    assert all(card in feasible for card in shown)
    assert answer.num_within_budget == len(feasible)
    again = ask(*budgets, candidates=cards[::-1], evidence=results[::-1], top=99)
    assert again.to_json() == answer.to_json()


@given(WORLD, st.integers(0, 50), st.integers(1, 50))
def test_a_dominated_candidate_changes_nothing(
    points: list[tuple[int, int, int | None]], dearer: int, worse: int
) -> None:
    cards, results = world(points)
    best = max(results, key=lambda row: row.miou_percent, default=None)
    if best is None:
        return
    model = next(card for card in cards if card.timm_name == best.timm)
    gmacs = (model.macs or 0) // 10**9 + dearer
    loser = candidate("loser_x", gmacs, params=model.params)
    added = result(loser, best.miou_percent - worse / 10, 99)
    before = ask("1000gmacs", candidates=cards, evidence=results, top=99)
    after = ask("1000gmacs", candidates=[*cards, loser], evidence=[*results, added], top=99)
    assert after.rows == before.rows
    assert after.num_dominated == before.num_dominated + 1


def test_figures_of_the_head_that_is_asked_for_come_first_and_others_are_said_to_be_others() -> None:
    eomt = [result(SMALL, 46.0, 11, head="eomt"), result(BASE, 53.0, 12, head="eomt")]
    more = [*RESULTS, *eomt, result(SMALL, 40.0, 13, head="linear"), result(BASE, 44.0, 14, head="linear")]
    asked = {head: ask(evidence=more, head=head) for head in ("luma", "eomt", "linear")}
    assert {head: found.scale.head for head, found in asked.items() if found.scale} == {
        "luma": "eomt",
        "eomt": "eomt",
        "linear": "linear",
    }
    assert asked["luma"].notes[0].endswith("no LUMA run seen")
    assert asked["eomt"].notes[0].startswith("accuracy: EoMT")
    other = ask(evidence=RESULTS, head="eomt")
    assert "it was not measured with head eomt" in other.notes[0]
    assert "costs are with head eomt; backbones that it cannot be attached to are left out" in other.notes
