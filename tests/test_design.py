"""The run for the exponents stands at a corner of a real grid, and the cheapest of equal corners is taken."""

from __future__ import annotations

import pytest
from advise_world import candidate

from luma_cli.advise.candidates import Candidate
from luma_cli.advise.design import Run, most_narrowing, series_of

SIDES = (224, 384, 512)
SIZES = {"t": 5e6, "s": 22e6, "b": 86e6}


def grid(card: str = "vit", objective: str = "dinov3") -> list[Candidate]:
    return [
        candidate(f"{card}_{size}.{objective}", resolution=side, backbone_params=int(params))
        for size, params in SIZES.items()
        for side in SIDES
    ]


def key(of: Candidate) -> Run:
    return of.timm_name, of.resolution


COSTS = {key(each): each.backbone_params * each.resolution**2 for each in grid() if each.backbone_params}


def test_the_first_run_is_the_cheapest_corner_and_the_next_the_opposite() -> None:
    done: list[Run] = []
    picked = []
    for _ in range(4):
        found = most_narrowing(grid(), done, COSTS)
        assert found is not None
        done.append(key(found))
        picked.append((found.name, found.resolution))
    assert picked[0] == ("vit_t.dinov3", 224)
    corners = {(name, side) for name in ("vit_t.dinov3", "vit_b.dinov3") for side in (224, 512)}
    assert set(picked) == corners


def test_what_costs_too_much_is_not_taken() -> None:
    cheap = {run: cost for run, cost in COSTS.items() if run[1] < 512}
    done = [key(each) for each in grid() if each.name == "vit_t.dinov3" and each.resolution == 224]
    found = most_narrowing(grid(), done, cheap)
    assert found is not None
    assert (found.name, found.resolution) == ("vit_b.dinov3", 224)


def test_all_done_leaves_nothing() -> None:
    assert most_narrowing(grid(), [key(each) for each in grid()], COSTS) is None
    assert most_narrowing([], [], {}) is None


@pytest.mark.parametrize(("done", "card"), [([], "swin"), ([("arch_vit_s.dinov3", 384)], "vit")])
def test_the_series_with_most_runs_else_the_best_expected(done: list[Run], card: str) -> None:
    both = [*grid(), *grid("swin")]
    mious = {key(each): 50.0 + (each.card == "swin") for each in both}
    assert {each.card for each in series_of(both, done, mious)} == {card}


def test_two_sizes_are_no_series() -> None:
    assert series_of([each for each in grid() if "_b." not in each.name], [], {}) == []
