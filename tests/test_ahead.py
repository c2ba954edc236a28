"""Work ahead of its turn: order, bound, errors in their place, copies per thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from luma_cli.evaluate.evaluation import OnePerThread, ahead


@pytest.fixture(params=[0, 1, 3])
def pool(request):
    if request.param == 0:
        yield None
        return
    with ThreadPoolExecutor(request.param) as made:
        yield made


def test_results_keep_the_order_of_the_items(pool):
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item**2

    assert list(ahead(work, range(20), pool, num_ahead=4)) == [item**2 for item in range(20)]


def test_no_more_is_begun_than_allowed(pool):
    taken = []

    def items():
        for item in range(10):
            taken.append(item)
            yield item

    results = ahead(lambda item: item, items(), pool, num_ahead=2)
    for count in range(1, 6):
        next(results)
        assert len(taken) == (count if pool is None else count + 2)
    results.close()


def test_an_error_is_raised_when_its_turn_comes(pool):
    def work(item: int) -> int:
        return 1 // (item - 2)

    results = ahead(work, range(5), pool, num_ahead=5)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_every_thread_has_a_copy_of_its_own():
    value = {"open": []}
    copies = OnePerThread(value)
    found = []
    threads = [threading.Thread(target=lambda: found.append((copies.get(), copies.get()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(first is second == value for first, second in found)
    assert len({id(first) for first, _ in found} | {id(value)}) == 4
