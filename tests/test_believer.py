"""Believed runs against Gaussian conditioning done in full, and what a run is worth under a budget."""

from __future__ import annotations

import numpy as np
import pytest

from luma_cli.advise.fronts import Floats
from luma_cli.advise.gain import Believer, value_of_information


def drawn(num_candidates: int = 6, shared: float = 1.0) -> Floats:
    """2,000 draws of candidates that share one effect, each with one of its own."""
    random = np.random.default_rng(3)
    return 50 + shared * random.normal(size=(2000, 1)) + random.normal(size=(2000, num_candidates))


def test_variances_are_those_of_gaussian_conditioning() -> None:
    draws, noise = drawn(), 0.3
    believer = Believer(draws, noise)
    believer.believe(1)
    believer.believe(4)
    full = np.cov(draws.T)
    seen = [1, 4]
    gain = full[:, seen] @ np.linalg.inv(full[np.ix_(seen, seen)] + noise**2 * np.eye(2))
    after = full - gain @ full[seen]
    assert believer.variance == pytest.approx(np.diag(after), abs=1e-9)
    assert believer.covariance([0], range(6))[0] == pytest.approx(after[0], abs=1e-9)
    assert believer.mean == pytest.approx(draws.mean(axis=0))


def test_without_noise_a_believed_run_is_known() -> None:
    believer = Believer(drawn(), 0.0)
    believer.believe(2)
    assert believer.sd[2] == pytest.approx(0, abs=1e-6)
    believer.believe(2)
    assert np.isfinite(believer.sd).all()


def test_one_draw_has_no_variance() -> None:
    with pytest.raises(ValueError, match="two draws"):
        Believer([[50.0]], 0.3)


def test_value_of_information_of_two_candidates_is_the_known_formula() -> None:
    """E max(mu_0, mu_1 + sd Z) - max(mu_0, mu_1) = sd phi(0) when both expect the same, here with sd 1."""
    random = np.random.default_rng(0)
    values = random.normal(size=2000)
    values = (values - values.mean()) / values.std(ddof=1)
    believer = Believer(np.column_stack((np.full(2000, 50.0), 50 + values)), 0.0)
    found = value_of_information(believer, [0, 1], [True, True])
    assert found == pytest.approx([0.0, 1 / np.sqrt(2 * np.pi)], abs=0.002)


def test_a_run_that_cannot_change_the_answer_is_worth_nothing() -> None:
    draws = drawn(3, shared=0.0)
    draws[:, 2] -= 40
    believer = Believer(draws, 0.3)
    found = value_of_information(believer, [0, 2], [True, True, True])
    assert found[0] > 0.1
    assert found[1] == 0  # its draws correlate by chance alone
    assert value_of_information(believer, [0], [False] * 3).tolist() == [0.0]


def test_a_run_beyond_the_budget_can_inform_those_within() -> None:
    random = np.random.default_rng(2)
    common = random.normal(size=2000)
    draws = np.column_stack((50 + common, np.full(2000, 50.0), 55 + common + 0.1 * random.normal(size=2000)))
    found = value_of_information(Believer(draws, 0.3), [2], [True, True, False])
    assert found[0] > 0.3
