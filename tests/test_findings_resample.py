"""Intervals: clusters are resampled whole, copies add nothing, and they cover what they say."""

from __future__ import annotations

import numpy as np
import pytest
from findings_world import row, tables
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import t as student

from luma_cli.findings.finding import Interval
from luma_cli.findings.pretraining import architecture_pairs, gap_ratio, mean_square, objective_pairs, shares
from luma_cli.findings.scores import scores
from luma_cli.findings.statistics import (
    Sample,
    cluster_interval,
    mean_interval,
    multiplicities,
    pearson,
    ratio_interval,
    student_quantile,
)


def mean_of(values: list[float], clusters: list[str]) -> Interval | None:
    array = np.array(values)
    return cluster_interval(clusters, lambda weights: weights @ array / weights.sum(1))


def test_draws_are_of_whole_clusters_and_fixed_by_the_seed() -> None:
    drawn = multiplicities(7, 50)
    assert drawn.shape == (50, 7)
    assert (drawn.sum(1) == 7).all()
    assert (drawn == multiplicities(7, 50)).all()


def test_copies_within_a_source_make_no_interval_narrower() -> None:
    values, names = [1.0, 4.0, 2.0, 8.0, 5.0], list("abcde")
    assert mean_of(values * 20, names * 20) == mean_of(values, names)


def test_few_clusters_give_no_interval() -> None:
    assert mean_of([1.0, 2.0, 3.0] * 9, list("abc") * 9) == Interval(2.0)
    assert cluster_interval([], lambda weights: weights.sum(1)) is None


@pytest.mark.parametrize("degrees", [3, 5, 10, 40])
def test_student_quantiles(degrees: int) -> None:
    assert student_quantile(0.95, degrees) == pytest.approx(student.ppf(0.95, degrees), rel=1e-3)


def test_cluster_interval_covers_the_mean_of_few_clusters() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        effects = random.normal(0, 1, 8)
        values = [float(effect + noise) for effect in effects for noise in random.normal(0, 0.5, 5)]
        found = mean_of(values, [str(each) for each in range(8) for _ in range(5)])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert 170 <= covered <= 194  # 90 % nominal; 85 to 97


def test_student_interval_is_the_textbook_one() -> None:
    found = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = student.ppf(0.95, 3) * np.std([1, 2, 3, 4], ddof=1) / 2
    assert found is not None
    assert found.high == pytest.approx(2.5 + half, rel=1e-3)
    assert mean_interval([]) is None
    ratios = ratio_interval([0.5, 2.0])
    assert ratios is not None
    assert ratios.value == pytest.approx(1.0)
    assert ratios.low is None


def test_typical_gap_counts_every_figure_once() -> None:
    """With k figures in a table the mean square gap over two is their sample variance, whatever the number of pairs."""
    rows = tables(2.0, 0.0, num_papers=1)
    pairs = objective_pairs(scores(rows))
    by_shape: dict[str, list[float]] = {score.shape: [] for score in scores(rows)}
    for score in scores(rows):
        by_shape[score.shape].append(score.miou_percent)
    variance = np.mean([np.var(values, ddof=1) for values in by_shape.values()])
    assert mean_square(pairs, np.ones((1, len(pairs)))) == pytest.approx(2 * variance)
    assert shares(pairs).sum() == pytest.approx(3 * 3)  # degrees of freedom: 3 ViTs of 4 objectives


def test_pairs_stay_within_one_table_size_and_series() -> None:
    base = row(0, 50.0)
    other_paper = row(1, 53.0, pretraining="clip", source="paper 1")
    other_crop = row(2, 53.0, pretraining="clip", height=640, width=640)
    other_head = row(3, 53.0, pretraining="clip", head="mask2former")
    frozen = row(4, 20.0, pretraining="clip", regime="frozen")
    assert objective_pairs(scores([base, other_paper, other_crop, other_head, frozen])) == []
    assert len(objective_pairs(scores([base, row(5, 53.0, pretraining="clip")]))) == 1
    large = row(6, 55.0, architecture="swin_large_patch4_window7_224")
    same_series = row(7, 51.0, architecture="deit_base_patch16_224")
    assert architecture_pairs(scores([base, large, same_series])) == []
    assert len(architecture_pairs(scores([base, row(8, 51.0, architecture="swin_base_patch4_window7_224")]))) == 1


def test_seeds_of_one_checkpoint_are_one_score() -> None:
    found = scores([row(0, 50.0), row(1, 52.0), row(2, 80.0, doubtful="an outlier"), row(3, 60.0, extra_data="COCO")])
    assert [(score.miou_percent, score.ids) for score in found] == [(51.0, ("row-0000", "row-0001"))]


def test_ratio_of_gaps_covers_its_truth() -> None:
    sd_objective, sd_architecture = 2.0, 1.0
    truth, covered = np.hypot(sd_objective, 0.2) / np.hypot(sd_architecture, 0.2), 0
    for seed in range(40):
        found = scores(tables(sd_objective, sd_architecture, num_papers=9, seed=seed))
        ratio = gap_ratio(objective_pairs(found), architecture_pairs(found))
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        covered += ratio.low <= truth <= ratio.high
    assert covered >= 33  # 90 % nominal of 40; long runs of this world give 87 to 91 %


def test_levels_of_groups_do_not_correlate() -> None:
    """Two groups on a rising line, each falling inside: what counts is inside."""
    rising = [
        Sample("low", "a", 0, 1),
        Sample("low", "b", 1, 0),
        Sample("high", "c", 10, 11),
        Sample("high", "d", 11, 10),
    ]
    found = pearson(rising)
    assert found is not None
    assert found.value == pytest.approx(-1)
    assert found.low is None  # many draws leave one figure a group


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12))
@example([1e-160, 0.0, 0.0])
@example([0.1, 0.1, 0.1])
def test_correlation_never_leaves_its_range(values: list[float]) -> None:
    samples = [Sample("g", i, value, -value + i) for i, value in enumerate(values)]
    found = pearson(samples)
    assert found is None or -1 <= found.value <= 1
