"""Images side by side give what they give one after the other, and torch's settings come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from loss_world import STEP, criterion, label_maps, prediction

from luma_cli.train.points import each, groups

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_groups_cover_the_batch():
    assert groups(3, CPU) == [range(0, 1), range(1, 2), range(2, 3)]
    assert groups(19, torch.device("cuda")) == [range(0, 8), range(8, 16), range(16, 19)]


def test_each_runs_in_threads_of_one_core_without_gradients_and_in_order():
    together = threading.Barrier(3, timeout=30)  # passed only when three run at once

    def work(images: range) -> tuple[int, int, bool]:
        together.wait()
        return images.start, torch.get_num_threads(), torch.is_grad_enabled()

    assert each(work, groups(6, CPU), CPU) == [(image, 1, False) for image in range(6)]
    assert torch.get_num_threads() == 3
    assert torch.is_grad_enabled()


def test_an_error_comes_out_and_the_settings_come_back():
    def work(images: range) -> None:
        raise ValueError(images.start)

    with pytest.raises(ValueError, match="0"):
        each(work, groups(4, CPU), CPU)
    assert torch.get_num_threads() == 3


def test_the_loss_is_the_same_bit_for_bit():
    labels = label_maps(5, 24, 6)
    found = prediction(5, 9, 6, 6)
    loss = criterion(9, 6)
    totals = loss.totals(labels)
    values = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        total = loss([found], labels, totals, STEP, range(5)).total
        values.append((total.detach(), *torch.autograd.grad(total, found)))
    assert all(torch.equal(one, three) for one, three in zip(*values, strict=True))
