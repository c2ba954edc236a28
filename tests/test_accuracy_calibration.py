"""Widths of intervals: quantiles of what was left out, labels that share an error counting once."""

from __future__ import annotations

import numpy as np
import pytest
from accuracy_world import some_rows

from luma_cli.accuracy.audit import LEAST_ROWS, unseen_objectives
from luma_cli.accuracy.effects import observe
from luma_cli.accuracy.fit import NORMAL, calibrate, fit, leave_out, load_components, quantiles
from luma_cli.accuracy.subjects import subject_of


def test_nothing_left_out_gives_a_normal_distribution():
    assert quantiles(np.zeros(0)) == pytest.approx(NORMAL, rel=0.06)
    assert quantiles(np.zeros(0), []) == pytest.approx(NORMAL, rel=0.06)


def test_many_normal_rows_give_a_normal_distribution():
    z = np.abs(np.random.default_rng(0).standard_normal(20_000))
    assert quantiles(z) == pytest.approx(NORMAL, rel=0.02)
    assert quantiles(3 * z) == pytest.approx([3 * each for each in NORMAL], rel=0.02)


def test_a_label_counts_once_however_many_rows_it_has():
    z = np.concatenate([np.full(1000, 0.1), np.full(30, 4.0)])
    by_row = quantiles(z)
    by_label = quantiles(z, ["large"] * 1000 + [f"small {index}" for index in range(30)])
    assert by_row[2] < 1 < 3 < by_label[1]


def test_widths_widen_with_what_is_new():
    observed = observe(some_rows(7), load_components().sensitivity)
    found = calibrate(fit(observed, load_components()))
    subject = subject_of("swin_tiny", "ade20k", resolution=512)
    plain = found.width(subject, [])
    assert plain[0] < plain[1] < plain[2]
    for novelty in ("source", "series", "objective", "head"):
        assert found.width(subject, [novelty])[1] >= plain[1]
    assert found.width(subject_of("swin_tiny", "elsewhere"), []) == NORMAL


def test_unseen_objectives_are_left_out_one_by_one():
    observed = observe(some_rows(5), load_components().sensitivity)
    fitted = fit(observed, load_components())
    found = unseen_objectives(fitted, calibrate(fitted))
    means, _ = leave_out(fitted, [subject.objective for subject in observed.subjects])
    gaps = observed.percent(means) - observed.percent(observed.log_error)
    assert found
    for each in found:
        rows = [
            index
            for index, subject in enumerate(observed.subjects)
            if (subject.objective, subject.dataset, subject.regime) == (each.objective, each.dataset, "fine-tuned")
        ]
        assert each.num == len(rows) >= LEAST_ROWS
        assert each.bias == pytest.approx(gaps[rows].mean())
        assert 0 <= each.inside_80 <= 1
    assert [each.bias for each in found] == sorted(each.bias for each in found)
