"""Steps of training: every sample once per epoch, the same ones whatever the number of ranks, from any step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.data.loader import StepOrder
from luma_cli.errors import UsageError


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3), st.integers(1, 5))
def test_ranks_share_what_one_takes(num_samples: int, batch: int, seed: int, num_ranks: int) -> None:
    alone = StepOrder(num_samples, batch, seed)
    if alone.step_size < num_ranks:
        with pytest.raises(UsageError, match="at least one each"):
            StepOrder(num_samples, batch, seed, 0, num_ranks)
        return
    ranks = [StepOrder(num_samples, batch, seed, rank, num_ranks) for rank in range(num_ranks)]
    for number in range(3 * alone.steps_per_epoch):
        whole = alone.step(number)
        shares = [rank.step(number).own for rank in ranks]
        assert whole.own == whole.samples == ranks[-1].step(number).samples
        assert sorted(sum(shares, ())) == sorted(whole.samples)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert len(set(whole.samples)) == min(batch, num_samples)


def test_an_epoch_takes_every_sample_at_most_once() -> None:
    order = StepOrder(23, 5, seed=1)
    assert order.steps_per_epoch == 4
    for epoch in range(3):
        taken = [index for step in order.steps(4 * epoch, 4 * epoch + 4) for index in step.samples]
        assert len(set(taken)) == 20
        assert all(step.epoch == epoch for step in order.steps(4 * epoch, 4 * epoch + 4))


def test_epochs_and_seeds_differ() -> None:
    first = [step.samples for step in StepOrder(23, 5, seed=1).steps(0, 4)]
    assert first != [step.samples for step in StepOrder(23, 5, seed=1).steps(4, 8)]
    assert first != [step.samples for step in StepOrder(23, 5, seed=2).steps(0, 4)]


def test_what_an_epoch_leaves_out_changes() -> None:
    order = StepOrder(23, 5, seed=1)
    left_out = [set(range(23)) - {i for s in order.steps(4 * e, 4 * e + 4) for i in s.samples} for e in range(10)]
    assert len({frozenset(each) for each in left_out}) > 1


def test_order_of_a_seed_stays_as_it_was() -> None:
    assert StepOrder(8, 4, seed=0).step(5).samples == (4, 2, 7, 3)


def test_steps_start_anywhere() -> None:
    order = StepOrder(23, 5, seed=1, rank=1, num_ranks=2)
    assert list(order.steps(0, 11))[6:] == list(order.steps(6, 11))
    assert order.step(9) == list(order.steps(0, 11))[9]


def test_fewer_samples_than_the_batch() -> None:
    order = StepOrder(3, 16, seed=0)
    assert (order.step_size, order.steps_per_epoch) == (3, 1)
    assert set(order.step(7).samples) == {0, 1, 2}
    assert order.step(7).epoch == 7
    assert "3 samples, fewer than the batch of 16" in order.shrunk
    assert StepOrder(16, 16, seed=0).shrunk == ""


@pytest.mark.parametrize("values", [(0, 1, 0), (1, 0, 0), (4, 2, 0, 2, 2), (4, 2, 0, -1, 2)])
def test_nonsense_is_refused(values: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="expected"):
        StepOrder(*values)
