"""Counts of images add up, whatever the order, also over processes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from luma_cli.evaluate.metrics import BoundaryCounts, Counts, RunningCounts, merge, merge_over_processes
from luma_cli.store.records import ImageScore


def part(index: int, boundary: bool = True, classes: int = 3) -> Counts:
    rng = np.random.default_rng(index)
    bands = BoundaryCounts(rng.integers(0, 9, classes), rng.integers(9, 20, classes)) if boundary else None
    score = ImageScore(f"image {index}", 4, 5, index + 1, 50.0, None)
    return Counts(rng.integers(0, 2**40, (classes, classes)), bands, ((index, score),), ((100 + index, "damaged"),))


def same(one: Counts, other: Counts) -> bool:
    bands = one.boundary, other.boundary
    equal_bands = bands == (None, None) or all(
        np.array_equal(getattr(bands[0], name), getattr(bands[1], name)) for name in ("intersection", "union")
    )
    plain = (one.images, one.skipped, one.num_windows) == (other.images, other.skipped, other.num_windows)
    return np.array_equal(one.confusion, other.confusion) and equal_bands and plain


def test_merging_knows_no_order_and_no_grouping():
    parts = [part(index) for index in range(5)]
    whole = merge(parts)
    assert np.array_equal(whole.confusion, sum(each.confusion for each in parts))
    assert [index for index, _ in whole.images] == [0, 1, 2, 3, 4]
    assert whole.skipped == tuple((100 + index, "damaged") for index in range(5))
    assert whole.num_windows == 15
    assert same(whole, merge(parts[::-1]))
    assert same(whole, merge([merge(parts[3:]), merge(parts[:3])]))


def test_a_process_without_images_adds_nothing():
    whole = merge([part(1), RunningCounts(3).total()])
    assert same(whole, part(1))
    assert merge([part(1, boundary=False)]).boundary is None
    with pytest.raises(ValueError, match="no counts"):
        merge([])


def test_a_tally_does_not_change_the_counts_it_was_given():
    first, tally = part(0), RunningCounts(3)
    before = first.confusion.copy()
    tally.add(first)
    total = tally.total()
    tally.add(part(1))
    assert np.array_equal(first.confusion, before)
    assert np.array_equal(total.confusion, before)


def test_one_process_keeps_its_counts():
    counts = part(0)
    assert merge_over_processes(counts) is counts


def _process(rank: int, file: str, results) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    found = merge_over_processes(merge([part(rank), part(rank + 2)]))
    results.put((rank, found.confusion, found.images, found.skipped, found.boundary.union))
    distributed.barrier()
    distributed.destroy_process_group()


def test_two_processes_get_the_same_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent.parent))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_process, args=(rank, str(tmp_path / "meet"), results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    expected = merge([part(index) for index in range(4)])
    for _, confusion, images, skipped, union in found:
        assert np.array_equal(confusion, expected.confusion)
        assert (images, skipped) == (expected.images, expected.skipped)
        assert np.array_equal(union, expected.boundary.union)
