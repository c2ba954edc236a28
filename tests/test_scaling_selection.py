"""Which results a law is read from: levels keep apart what must not be compared; what is left out has a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
import scaling_world as world

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.evidence.evidence import Evidence
from luma_cli.scaling.series import choose
from luma_cli.store.runs import OwnRun

NAMES = ("vit_small_patch16_dinov3", "vit_base_patch16_dinov3", "vit_large_patch16_dinov3")
CARDS = ("vit_s.dinov3", "vit_b.dinov3", "vit_l.dinov3")


def row(name: str, side: int | None = 512, miou: float = 50.0, **fields: object) -> Evidence:
    values: dict[str, object] = {
        "id": f"{name}-{side}-{fields.get('eval', '')}-{fields.get('head', '')}",
        "provenance": "other head",
        "trust": "primary",
        "dataset": "ade20k",
        "split": "val",
        "head": "upernet",
        "regime": "fine-tuned",
        "eval": "single-scale",
        "backbone": name,
        "miou_percent": miou,
        "height": side,
        "width": side,
        "pretraining": "dinov3",
        "source": "paper",
    }
    return Evidence(**{**values, **fields})  # type: ignore[arg-type]


def own(side: int, index: int = 1, **fields: object) -> OwnRun:
    return world.own_run(CARDS[index], f"{NAMES[index]}.lvd1689m", side, 50.0, **fields)


def test_size_is_the_backbones_and_tokens_are_cells_of_16_pixels() -> None:
    found = choose([row(NAMES[0]), row(NAMES[1], 1024)], [], "ade20k").points
    assert [point.params for point in found] == [pytest.approx(21.6e6, rel=0.01), pytest.approx(85.6e6, rel=0.01)]
    assert [point.tokens for point in found] == [1024, 4096]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"regime": "frozen"}, "frozen probe"),
        ({"doubtful": "a fit expects 40"}, "doubtful figure"),
        ({"height": None, "width": None}, "crop size not stated"),
        ({"backbone": "nobody_knows_this"}, "parameters of the backbone not known"),
        ({"source": "another paper"}, "nothing else on its level to compare it with"),
    ],
)
def test_what_is_left_out_is_counted_by_reason(changes: dict[str, object], reason: str) -> None:
    rows = [row(NAMES[0]), row(NAMES[1]), replace(row(NAMES[2], 640), **changes)]  # type: ignore[arg-type]
    found = choose(rows, [], "ade20k")
    assert len(found.points) == 2
    assert found.left_out == {reason: 1}


def test_one_training_counts_once() -> None:
    rows = [row(name, eval=kind) for name in NAMES for kind in ("single-scale", "ms+flip")]
    found = choose(rows, [], "ade20k")
    assert len(found.points) == 3
    assert found.left_out == {"multi-scale score of a training that is here at a single scale": 3}
    assert len(choose([each for each in rows if each.eval == "ms+flip"], [], "ade20k").points) == 3


@pytest.mark.parametrize(
    "changes", [{"head": "eomt"}, {"eval": "ms+flip"}, {"source": "other"}, {"pretraining": "mae"}, {"recipe": "x"}]
)
def test_other_protocols_are_other_levels(changes: dict[str, object]) -> None:
    rows = [row(name) for name in NAMES] + [row(name, 640, **changes) for name in NAMES]
    assert len(choose(rows, [], "ade20k").levels) == 2


def test_filters() -> None:
    swins = [row(f"swin_{size}_patch4_window7_224", pretraining="supervised_in1k") for size in ("tiny", "base")]
    rows = [row(name) for name in NAMES] + swins
    assert len(choose(rows, [], "ade20k", family="hierarchical").points) == 2
    assert len(choose(rows, [], "ade20k", pretraining="dinov3").points) == 3
    assert choose(rows, [], "cityscapes").points == ()
    assert choose(rows, [], "ade20k", own_only=True).points == ()


def test_own_runs_of_one_setting_share_a_level() -> None:
    runs = [own(512), own(640), own(512, 2)]
    found = choose([], runs, "ade20k")
    assert (len(found.points), len(found.levels), found.num_own) == (3, 1, 3)
    changed = [own(512, head=HeadConfig(num_queries=200)), own(640, recipe="ade20k+", usual_recipe=False)]
    assert choose([], [*runs, *changed], "ade20k").left_out == {"nothing else on its level to compare it with": 2}
    stopped = choose([], [*runs, own(1024, status="stopped")], "ade20k")
    assert stopped.left_out == {"run that did not finish": 1}


def test_enough_own_runs_stand_alone() -> None:
    published = [row(name) for name in NAMES]
    grid = [own(side, index) for index in range(3) for side in (224, 512, 1024)]
    found = choose(published, grid, "ade20k")
    assert (found.num_own, len(found.points)) == (9, 9)
    assert sum(found.left_out.values()) == 3
    assert len(choose(published, grid[:4], "ade20k").points) == 7
