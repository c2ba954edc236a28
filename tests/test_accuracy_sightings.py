from __future__ import annotations

import math

import pytest
from accuracy_world import own, row
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.accuracy.sightings import Sighting, Sightings, hull, span
from luma_cli.accuracy.subjects import Subject, subject_of, subject_of_row
from luma_cli.evidence.evidence import Evidence

POINTS = st.lists(st.tuples(st.integers(-8, 8), st.integers(-8, 8)), min_size=1, max_size=12)


def sightings(*rows: Evidence) -> Sightings:
    return Sightings([Sighting.of(subject_of_row(each), each.id, each.provenance) for each in rows])


def swin(size: str = "tiny", **fields: object) -> Subject:
    known: dict[str, object] = {"resolution": 512, "pretraining": "supervised_in1k", "head": "upernet", **fields}
    return subject_of(f"swin_{size}", "ade20k", **known)  # type: ignore[arg-type]


# The hull


def test_corners_go_round_without_points_on_edges() -> None:
    square = [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]
    assert hull([*square, (1.0, 1.0), (1.0, 0.0), (2.0, 2.0)]) == square


def test_a_level_line_enters_and_leaves() -> None:
    triangle = hull([(0, 0), (4, 0), (2, 2)])
    assert span(triangle, 1.0) == (1.0, 3.0)
    assert span(triangle, 0.0) == (0.0, 4.0)
    assert span(triangle, 2.0) == (2.0, 2.0)
    assert span(triangle, 2.1) is None


@pytest.mark.parametrize(
    ("points", "height", "expected"),
    [
        ([], 0.0, None),
        ([(1.0, 2.0)], 2.0, (1.0, 1.0)),
        ([(1.0, 2.0)], 3.0, None),
        ([(0.0, 0.0), (2.0, 4.0)], 2.0, (1.0, 1.0)),
        ([(0.0, 1.0), (3.0, 1.0), (1.0, 1.0)], 1.0, (0.0, 3.0)),
    ],
)
def test_degenerate_hulls(points: list[tuple[float, float]], height: float, expected: tuple[float, float]) -> None:
    assert span(hull(points), height) == expected


@given(POINTS, st.lists(st.integers(0, 5), min_size=12, max_size=12))
def test_every_mean_of_points_is_within(points: list[tuple[int, int]], weights: list[int]) -> None:
    used = [(weight + 1e-3, point) for weight, point in zip(weights, points, strict=False)]
    total = sum(weight for weight, _ in used)
    across, height = (sum(weight * point[axis] for weight, point in used) / total for axis in (0, 1))
    crossed = span(hull(points), height)
    assert crossed is not None
    assert crossed[0] - 1e-6 <= across <= crossed[1] + 1e-6


@given(POINTS, st.integers(-8, 8))
def test_a_level_line_leaves_at_the_outermost_points(points: list[tuple[int, int]], height: int) -> None:
    at = [point[0] for point in points if point[1] == height]
    crossed = span(hull(points), height)
    assert (crossed is None) == (not min(y for _, y in points) <= height <= max(y for _, y in points))
    if at and crossed:
        assert crossed[0] <= min(at) + 1e-9
        assert max(at) - 1e-9 <= crossed[1]


# Who rows are about


def test_the_closest_relation_answers() -> None:
    weights, objective = row("swin_tiny"), row("swin_tiny", pretraining="supervised_in1k", recipe="x")
    found = sightings(weights, objective, row("swin_tiny", pretraining="clip"), row("swin_base")).support(swin())
    assert found.relation == "these weights"
    assert set(found.ids) == {weights.id, objective.id}
    assert found.line == "2 results with other heads"


@pytest.mark.parametrize(
    ("other", "relation"),
    [
        (row("swin_tiny_patch4_window7_224.ms_in1k"), "same architecture and objective"),
        (row("swin_tiny", pretraining="clip"), "same architecture"),
        (row("swin_base"), "same series"),
    ],
)
def test_failing_these_weights_relatives_do(other: Evidence, relation: str) -> None:
    found = sightings(other).support(swin())
    assert found.relation == relation
    assert found.ids == (other.id,)
    assert found.line == f"none of these weights; 1 result with another head of the {relation}"


def test_other_datasets_and_series_do_not_speak() -> None:
    rows = row("swin_tiny", dataset="cityscapes"), row("convnext_tiny")
    found = sightings(*rows).support(swin())
    assert found.ids == ()
    assert found.line == "no result of its series on this dataset"


def test_own_runs_come_first_then_the_protocol_asked_for() -> None:
    frozen = row("swin_tiny", regime="frozen", head="linear")
    scales = row("swin_tiny", eval="ms+flip")
    same = row("swin_tiny")
    larger = row("swin_tiny", height=640, width=640)
    run = own("swin_tiny", 44.0, pretraining="supervised_in1k")
    seen = sightings(frozen, scales, larger, same, run)
    assert seen.support(swin()).ids == (run.id, same.id, larger.id, scales.id)
    assert seen.support(swin(resolution=640)).ids == (run.id, larger.id, same.id, scales.id)
    assert seen.support(swin()).line == "1 own run, 3 results with other heads"
    assert seen.support(swin()).standing == "own run"


def test_frozen_probes_are_no_evidence_for_a_fine_tuned_model() -> None:
    frozen, other = row("swin_tiny", regime="frozen", head="linear"), row("swin_base")
    assert sightings(frozen, other).support(swin()).ids == (other.id,)
    alone = sightings(frozen).support(swin())
    assert (alone.ids, alone.standing) == ((frozen.id,), "none")
    assert alone.line == "1 result with another head, trained otherwise (frozen or fine-tuned)"


def test_luma_and_eomt_are_near_each_other() -> None:
    upernet, eomt = row("swin_tiny"), row("swin_tiny", head="eomt")
    assert sightings(upernet, eomt).support(swin(head="luma")).ids == (eomt.id, upernet.id)


def test_own_runs_are_counted_where_nothing_was_changed() -> None:
    changed = own("swin_small", 20.0, recipe="measured here: recipe ade20k changed")
    eomt = own("swin_tiny", 44.0, head="eomt")
    assert sightings(row()).own_luma_runs == 0
    assert sightings(own("swin_tiny", 44.0), changed, eomt).own_luma_runs == 1


def test_an_own_run_speaks_about_the_weights_that_it_used() -> None:
    run = own("convnext_base.fb_in22k", 50.0, backbone="convnext_b.supervised_in21k")
    named = subject_of("convnext_base.fb_in22k", "ade20k", resolution=512, pretraining="supervised_in21k")
    assert sightings(run).support(named).relation == "these weights"


# Beyond what was seen


@pytest.fixture(scope="module")
def spread() -> Sightings:
    """Swin-T and -B at 512 and 640 px, ResNet-18 at 512 alone."""
    seen = [row(f"swin_{size}", height=side, width=side) for size in ("tiny", "base") for side in (512, 640)]
    return sightings(*seen, row("resnet18"), row("vit_huge_patch14_224", regime="frozen", head="linear"))


@pytest.mark.parametrize(
    ("name", "side", "reason"),
    [
        ("swin_tiny", 512, ""),
        ("swin_small", 576, ""),
        ("swin_small", None, ""),
        ("swin_large", 512, "no larger backbone was seen than 86.7 M parameters"),
        ("mit_b0", 512, "no smaller backbone was seen than 11.2 M parameters"),
        ("resnet18", 640, "no result for its size near 640x640 px"),
        ("swin_small", 224, "no result for its size near 224x224 px"),
        ("swin_small", 1024, "no result for its size near 1024x1024 px"),
        ("nobody_knows", 512, "its size is not known"),
    ],
)
def test_what_lies_outside_is_said(spread: Sightings, name: str, side: int | None, reason: str) -> None:
    subject = subject_of(name, "ade20k", resolution=side, head="upernet")
    assert "; ".join(spread.beyond(subject)) == reason


def test_frozen_probes_do_not_widen_what_was_fine_tuned(spread: Sightings) -> None:
    tuned = subject_of("vit_huge_patch14_224", "ade20k", resolution=512, head="upernet")
    frozen = subject_of("vit_huge_patch14_224", "ade20k", resolution=512, head="linear", regime="frozen")
    assert list(spread.beyond(tuned)) == ["no larger backbone was seen than 86.7 M parameters"]
    assert list(spread.beyond(frozen)) == []


def test_without_rows_nothing_is_beyond() -> None:
    assert list(sightings().beyond(swin())) == []


def test_a_size_given_by_the_user_counts(spread: Sightings) -> None:
    subject = subject_of("nobody_knows", "ade20k", resolution=512, params=math.exp(17.5), head="upernet")
    assert list(spread.beyond(subject)) == []
