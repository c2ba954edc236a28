"""The run for the exponents narrows them as much as any other of a real grid could."""

from __future__ import annotations

import pytest
from advise_world import candidate

from luma_cli.advise.candidates import Candidate
from luma_cli.advise.next import Run, most_narrowing, series_of
from luma_cli.scaling.law import PLAIN
from luma_cli.scaling.series import size_exponent_sd

SIDES = (224, 384, 512)
SIZES = {"t": 5e6, "s": 22e6, "b": 86e6}


def grid(card: str = "vit", objective: str = "dinov3") -> list[Candidate]:
    return [
        candidate(f"{card}_{size}.{objective}", params * side**2 / 1e11, side, backbone_params=int(params))
        for size, params in SIZES.items()
        for side in SIDES
    ]


def key(of: Candidate) -> Run:
    return of.timm_name, of.resolution


ALL = {key(each) for each in grid()}


def narrowed(done: list[Run]) -> float:
    """Standard deviation of the exponent of size after these runs."""
    by_key = {key(each): each for each in grid()}
    runs = [(float(by_key[run].backbone_params or 0), (run[1] / 16) ** 2) for run in done]
    return size_exponent_sd(runs, PLAIN, prior=True)


def test_every_run_narrows_as_much_as_any_other_could_and_the_first_is_a_corner() -> None:
    done: list[Run] = []
    for _ in range(6):
        found = most_narrowing(grid(), done, ALL)
        assert found is not None
        least = min(narrowed([*done, run]) for run in ALL if run not in done)
        done.append(key(found))
        assert narrowed(done) <= 1.02 * least
    assert done[0] in {(f"arch_vit_{size}.dinov3", side) for size in "tb" for side in (224, 512)}


def test_what_costs_too_much_is_not_taken() -> None:
    cheap = {run for run in ALL if run[1] < 512}
    for done in ([], [("arch_vit_t.dinov3", 224)]):
        found = most_narrowing(grid(), done, cheap)
        assert found is not None
        assert key(found) in cheap


def test_sizes_that_hardly_anybody_can_train_are_left_out() -> None:
    giants = [candidate("vit_7b.dinov3", 3000, side, backbone_params=6_700_000_000) for side in SIDES]
    chosen = series_of([*grid(), *giants], [key(each) for each in grid()], {})
    assert {key(each) for each in chosen} == ALL


def test_all_done_leaves_nothing() -> None:
    assert most_narrowing(grid(), [key(each) for each in grid()], ALL) is None
    assert most_narrowing([], [], ()) is None


@pytest.mark.parametrize(("done", "card"), [([], "swin"), ([("arch_vit_s.dinov3", 384)], "vit")])
def test_the_series_with_most_runs_else_the_best_expected(done: list[Run], card: str) -> None:
    both = [*grid(), *grid("swin")]
    mious = {key(each): 50.0 + (each.card == "swin") for each in both}
    assert {each.card for each in series_of(both, done, mious)} == {card}


def test_two_sizes_are_no_series() -> None:
    assert series_of([each for each in grid() if "_b." not in each.name], [], {}) == []
