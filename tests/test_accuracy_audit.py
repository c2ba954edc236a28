from __future__ import annotations

import pytest
from accuracy_world import row, some_rows

from luma_cli.accuracy.audit import audit
from luma_cli.accuracy.effects import observe
from luma_cli.accuracy.fit import load_components
from luma_cli.accuracy.regret import MODEL, RULES, Known, Regret, best_rule, regrets
from luma_cli.accuracy.subjects import subject_of_row
from luma_cli.evidence.evidence import Evidence

SIZES = {"tiny": 44.0, "small": 47.0, "base": 48.0, "large": 52.0}
SWIN = [row(f"swin_{size}", points) for size, points in SIZES.items()]
SIX = [*SWIN, row("resnet50", 42.0), row("vit_base_patch16_224", 53.0)]


def losses(rows: list[Evidence], predicted: list[float]) -> dict[str, Regret]:
    """Regrets on ADE20K; predicted: in the order of the rows."""
    observed = observe(rows, load_components().sensitivity)
    by_id = dict(zip((each.id for each in rows), predicted, strict=True))
    truth = {each.id: each.miou_percent for each in rows}
    return regrets(observed, [truth[each] for each in observed.ids], [by_id[each] for each in observed.ids])["ade20k"]


def test_who_knows_the_truth_regrets_nothing() -> None:
    assert losses(SIX, [each.miou_percent for each in SIX])[MODEL] == Regret(0.0, 0.0, 7)


def test_who_believes_the_opposite_regrets_most() -> None:
    found = losses(SIX, [-each.miou_percent for each in SIX])[MODEL]
    assert found.at_1 > 5
    assert 0 < found.at_3 < found.at_1


def test_the_largest_that_fits_is_the_rule_it_says() -> None:
    by_size = [float(subject_of_row(each).params or 0) for each in SIX]
    found = losses(SIX, by_size)
    assert found[MODEL] == found["largest that fits"]


def test_fewer_than_five_backbones_are_no_choice() -> None:
    assert regrets(observe(SWIN, {}), [1.0] * 4, [1.0] * 4) == {}


def test_a_rule_may_not_look_at_what_it_scores() -> None:
    subjects = [subject_of_row(each) for each in SIX]
    known = [Known(subject, each.miou_percent) for subject, each in zip(subjects, SIX, strict=True)]
    assert RULES["nearest neighbour"](subjects[0], known) == 44.0
    assert RULES["nearest neighbour"](subjects[0], []) == 0.0
    # Left out itself, ResNet-50 (23.5 M) is nearest to Swin-T (27.5 M).
    assert RULES["nearest neighbour"](subjects[0], known[1:]) == 42.0


def test_the_model_wins_ties() -> None:
    even = Regret(1.0, 0.5, 7)
    assert best_rule({"a rule": even, MODEL: even}) == MODEL
    assert best_rule({"a rule": Regret(0.9, 0.9, 7), MODEL: even}) == "a rule"


@pytest.fixture(scope="module")
def audited() -> dict[tuple[str, str], tuple[float, ...]]:
    found = audit(some_rows(6))
    assert found.to_json()["schema"] == 1
    return {
        (score.left_out, f"{score.dataset}, {score.regime}"): (score.mae, *score.coverage, score.num)
        for score in found.scores
    }


def test_leaving_more_out_is_no_easier(audited: dict[tuple[str, str], tuple[float, ...]]) -> None:
    ade = {left: scores[0] for (left, scale), scores in audited.items() if scale == "ade20k, fine-tuned"}
    assert ade["backbone"] < ade["series"]
    assert 0.3 < ade["backbone"] < 3.0


def test_intervals_cover_what_was_left_out(audited: dict[tuple[str, str], tuple[float, ...]]) -> None:
    _, half, most, nearly, num = audited["backbone", "ade20k, fine-tuned"]
    assert num > 90
    assert 0.35 < half < 0.65
    assert 0.68 < most < 0.9
    assert 0.8 < nearly < 0.98


def test_no_evidence_is_audited_without_an_error() -> None:
    found = audit([])
    assert found.num_rows == 0
    assert found.scores == ()
    assert found.winners == {}


def test_components_can_be_learned_without_the_rows_too() -> None:
    found = audit(some_rows(24), relearn=True)
    assert found.relearned is True
    assert {score.dataset for score in found.scores} == {"ade20k", "cityscapes"}
