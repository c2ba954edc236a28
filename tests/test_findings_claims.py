"""Every claim in worlds where it is true, where it is false and where it cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from advise_world import conditions, measured
from findings_world import both_heads, checkpoints, own, row, tables

from luma_cli.accuracy.sightings import Effect, Prediction
from luma_cli.accuracy.subjects import Subject
from luma_cli.catalogue.costs import load_costs
from luma_cli.catalogue.names import resolve
from luma_cli.findings.finding import CONTRADICTED, SUPPORTED, UNDECIDED, Finding
from luma_cli.findings.front import front, is_plain, loss_of_class
from luma_cli.findings.heads import heads
from luma_cli.findings.imagenet import imagenet_top1
from luma_cli.findings.mixers import KINDS, mixers
from luma_cli.findings.pretraining import pretraining
from luma_cli.findings.scores import own_scores, usable
from luma_cli.findings.split import split
from luma_cli.scaling.law import Law
from luma_cli.store.profiles import Measured
from luma_cli.store.runs import OwnRun

if TYPE_CHECKING:
    from luma_cli.accuracy.sightings import Draws


def decided(finding: Finding) -> list[float | None]:
    return [None if each.value is None else each.value.value for each in finding.figures]


@pytest.mark.parametrize(
    ("sds", "num_papers", "verdict"),
    [
        ((3.0, 0.5), 12, SUPPORTED),
        ((0.5, 3.0), 12, CONTRADICTED),
        ((1.5, 1.5), 12, UNDECIDED),
        ((3.0, 0.5), 3, UNDECIDED),
    ],
)
def test_pretraining_against_architecture(sds: tuple[float, float], num_papers: int, verdict: str) -> None:
    found = pretraining(tables(*sds, num_papers=num_papers), "ade20k")
    assert found.verdict == verdict
    assert len(found.rows) == 12 * num_papers
    assert bool(found.settle) == (verdict == UNDECIDED)


def test_pretraining_is_the_same_every_time_and_decided_by_fine_tuned_rows() -> None:
    rows = tables(2.0, 1.0)
    assert pretraining(rows, "ade20k").figures == pretraining(rows, "ade20k").figures
    assert pretraining(rows, "cityscapes").verdict == UNDECIDED
    frozen = [replace(each, regime="frozen") for each in tables(3.0, 0.5)]
    assert pretraining(frozen, "ade20k").verdict == UNDECIDED  # frozen probes never decide


@pytest.mark.parametrize(
    ("slope", "noise", "num_papers", "verdict"),
    [(0.0, 2.0, 8, SUPPORTED), (1.0, 0.2, 8, CONTRADICTED), (0.3, 1.5, 6, UNDECIDED), (0.0, 2.0, 3, UNDECIDED)],
)
def test_imagenet_across_objectives(slope: float, noise: float, num_papers: int, verdict: str) -> None:
    rows, top1 = checkpoints(slope, noise, num_papers)
    assert imagenet_top1(rows, top1, "ade20k").verdict == verdict


def test_imagenet_takes_exact_weights_alone() -> None:
    rows, top1 = checkpoints(0.0, 2.0)
    unknown = [replace(each, in_timm="arch") for each in rows]
    assert decided(imagenet_top1(unknown, top1, "ade20k")) == [None]
    assert imagenet_top1(unknown, top1, "ade20k").rows == ()


GAPS = ("vit_small_patch16_224.a", "vit_base_patch16_224.a", "vit_base_patch14_dinov2.a", "vit_large_patch14_dinov2.a")


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ((0.1, -0.1, 0.0, 0.05), SUPPORTED),
        ((-2.0, -2.2, -1.9, -2.1), CONTRADICTED),
        ((-2.0, 2.0, -1.0, 1.0), UNDECIDED),
    ],
)
def test_heads(gaps: Sequence[float], verdict: str) -> None:
    runs = list(both_heads(dict(zip(GAPS, gaps, strict=True))))
    found = heads(runs, load_costs(), "ade20k")
    assert found.verdict == verdict
    assert sum(each.id.startswith("run-") for each in found.rows) == 8


def test_heads_needs_enough_backbones_and_a_lower_cost() -> None:
    runs = list(both_heads(dict.fromkeys(GAPS[:3], 0.0)))
    assert heads(runs, load_costs(), "ade20k").verdict == UNDECIDED
    costs = {key: facts for key, facts in load_costs().items() if key[0] == "vit_base_patch16_224"}
    ratio, gap = decided(heads(runs, costs, "ade20k"))
    assert ratio is not None
    assert 0.9 < ratio < 1  # the text-book case: LUMA on ViT-B at 512 px
    assert gap == pytest.approx(0)
    dearer = {key: replace(facts, joint_blocks="1x0*12") for key, facts in costs.items()}  # EoMT for next to nothing
    assert heads(runs, dearer, "ade20k").verdict == CONTRADICTED


@pytest.mark.parametrize(
    "difference",
    [{"status": "stopped"}, {"weights": "random"}, {"recipe": "ade20k+", "usual_recipe": False}, {"data": "ade20k#1"}],
)
def test_unusual_runs_count_nowhere(difference: dict[str, Any]) -> None:
    run = own(1, "vit_base_patch16_224.mae", 50.0)
    assert usable(run, "ade20k")
    assert not usable(replace(run, **difference), "ade20k")


def test_seeds_of_one_model_are_averaged() -> None:
    runs = [own(1, "a.b", 50.0), own(2, "a.b", 51.0, seed=1)]
    assert [(each.miou_percent, each.ids) for each in own_scores(runs, "ade20k")] == [(50.5, ("run-001", "run-002"))]


def profiled(speed: float, memory: float, kinds: int = 5, attention: str = "auto") -> list[Measured]:
    """A ViT-B at 100 img/s and 1 GiB, and mixers of its size with the ratios given, all a little different."""
    plain = measured("vit_base_patch16_224.a", conditions=conditions(attention=attention))
    return [
        plain,
        *(
            measured(
                f"{kind}_vit_base_patch16_224",
                conditions=conditions(attention="auto"),
                images_per_second=100 * speed * (1 + 0.01 * number),
                memory_bytes=2**30 * memory * (1 + 0.01 * number),
            )
            for number, kind in enumerate(KINDS[:kinds])
        ),
    ]


def trained(gap: float, kinds: int = 5) -> list[OwnRun]:
    plain = own(0, "vit_base_patch16_224.a", 50.0)
    mixing = (
        own(n + 1, f"{kind}_vit_base_patch16_224", 50 + gap + 0.05 * n, weights="weights.pt")
        for n, kind in enumerate(KINDS[:kinds])
    )
    return [plain, *mixing]


@pytest.mark.parametrize(
    ("speed", "memory", "gap", "verdict"),
    [
        (0.7, 0.8, -3.0, SUPPORTED),
        (1.5, 0.8, 0.5, CONTRADICTED),
        (0.7, 1.2, -3.0, CONTRADICTED),
        (1.5, 0.8, -3.0, UNDECIDED),
    ],
)
def test_mixers(speed: float, memory: float, gap: float, verdict: str) -> None:
    found = mixers(trained(gap), profiled(speed, memory), None, "ade20k")
    assert found.verdict == verdict
    assert decided(found)[:2] == [pytest.approx(speed, rel=0.05), pytest.approx(memory, rel=0.05)]


def test_mixers_never_mix_devices_attention_or_too_few_kinds() -> None:
    rows = profiled(0.7, 0.8)
    assert mixers(trained(-3.0), [], None, "ade20k").verdict == UNDECIDED
    assert mixers(trained(-3.0, 3), profiled(0.7, 0.8, 3), None, "ade20k").verdict == UNDECIDED
    assert mixers([], rows, None, "ade20k").verdict == UNDECIDED
    other = [replace(each, conditions=replace(each.conditions, device_name="Other GPU")) for each in rows[1:]]
    assert decided(mixers(trained(-3.0), [rows[0], *other], None, "ade20k"))[0] is None
    unfused = profiled(0.7, 0.8, attention="unfused")
    found = mixers(trained(-3.0), unfused, None, "ade20k")
    assert decided(found)[0] is None  # with FlashAttention nothing is known
    flagged = [replace(each, flags=("throttled",)) for each in rows]
    assert decided(mixers(trained(-3.0), flagged, None, "ade20k"))[0] is None


class Known:
    """An accuracy model that knows every architecture exactly, or by `sd` points."""

    scale_note = "made up"

    def __init__(self, better: float, sd: float = 0.1) -> None:
        self.better, self.sd = better, sd

    def draws(self, subjects: Sequence[Subject], num_draws: int = 2000, seed: int = 0) -> Draws:
        sizes = np.array([subject.params or 1e7 for subject in subjects])
        rivals = np.array([0.0 if is_plain(subject.architecture) else self.better for subject in subjects])
        noise = np.random.default_rng(seed).normal(0, self.sd, (num_draws, len(subjects)))
        return np.asarray(30 + 2 * np.log(sizes / 1e6) + rivals + noise)

    def predict(self, subjects: Sequence[Subject]) -> list[Prediction]:
        return []

    def effects(self, subject: Subject) -> list[Effect]:
        return []


SPEEDS = {
    **{"vit_tiny_patch16_224": 900.0, "vit_small_patch16_224": 400.0, "vit_base_patch16_224": 150.0},
    **{"swin_tiny_patch4_window7_224": 300.0, "swin_small_patch4_window7_224": 180.0, "convnext_tiny": 350.0},
    **{"convnext_small": 190.0, "swin_base_patch4_window7_224": 110.0, "convnext_base": 120.0},
    **{"resnet50": 500.0, "resnet101": 250.0, "vit_large_patch16_224": 50.0, "poolformer_s36": 200.0},
}


def bench(
    resolutions: Sequence[int] = (224, 512, 1024), attentions: Sequence[str] = ("auto", "unfused")
) -> list[Measured]:
    return [
        measured(name, resolution=side, images_per_second=rate, conditions=conditions(attention=attention))
        for attention in attentions
        for side in resolutions
        for name, rate in SPEEDS.items()
    ]


@pytest.mark.parametrize(
    ("model", "rows", "verdict"),
    [
        (Known(-1.5), bench(), SUPPORTED),
        (Known(4.0), bench(), CONTRADICTED),
        (Known(0.4, sd=3.0), bench(), UNDECIDED),
        (Known(-1.5), bench(attentions=("auto",)), UNDECIDED),
        (Known(-1.5), bench(resolutions=(224, 384, 512)), UNDECIDED),
        (Known(-1.5), [], UNDECIDED),
    ],
)
def test_throughput_front(model: Known, rows: list[Measured], verdict: str) -> None:
    found = front(model, rows, None, "ade20k")
    assert found.verdict == verdict
    assert len(found.rows) == len(rows)


def test_a_front_needs_rivals_and_vits() -> None:
    few = [each for each in bench() if each.architecture.startswith(("vit", "swin"))]
    assert front(Known(4.0), few, None, "ade20k").figures == ()


def test_loss_along_a_front_by_hand() -> None:
    """The class spans speeds of 4 to 1; in the slower half, at 2 to 1, a model outside it is better by 1."""
    rates, is_class = np.array([1.0, 2.0, 4.0, 8.0]), np.array([True, False, True, False])
    accuracy = np.array([[50.0, 41.0, 40.0, 10.0]])
    assert loss_of_class(rates, accuracy, is_class).value == pytest.approx(0.5)
    certain = loss_of_class(rates, np.repeat(accuracy, 10, axis=0), is_class)
    assert certain.low == certain.high == pytest.approx(0.5)


LAW = Law(20.0, 14.0, 12.0, 0.2, 0.97, 86e6, 1024.0, "", {}, 0.0, 0.0)


def grid(law: Law, noise: float, num_sides: int = 4) -> list[OwnRun]:
    """ViTs of DINOv3 in four sizes at four resolutions, errors by the law."""
    sizes = {"vit_small_patch16_dinov3": 21.6e6, "vit_base_patch16_dinov3": 85.7e6, "vit_large_patch16_dinov3": 303e6}
    sizes["vit_huge_plus_patch16_dinov3"] = 841e6
    random = np.random.default_rng(3)
    return [
        replace(
            own(number, f"{name}.lvd1689m", 100 - law.error(params, (side / 16) ** 2) + random.normal(0, noise)),
            resolution=side,
            run_id=f"run-{name}-{side}",
            pretraining="dinov3",
        )
        for number, (name, params) in enumerate(sizes.items())
        for side in (224, 384, 640, 1024)[:num_sides]
    ]


@pytest.mark.parametrize(
    ("law", "noise", "num_sides", "verdict"),
    [
        (LAW, 0.1, 4, SUPPORTED),
        (replace(LAW, a=0.97, b=0.2), 0.1, 4, CONTRADICTED),
        (LAW, 3.0, 4, UNDECIDED),
        (LAW, 0.1, 2, UNDECIDED),
    ],
)
def test_split(law: Law, noise: float, num_sides: int, verdict: str) -> None:
    runs = grid(law, noise, num_sides)
    found = split([], runs, "ade20k")
    assert found.verdict == verdict, found.figures
    assert len(found.rows) == (len(runs) if num_sides > 2 else 0)


def test_what_to_run_names_backbones_that_exist() -> None:
    empty = [
        pretraining([], "cityscapes"),
        imagenet_top1([], {}, "ade20k"),
        heads([], {}, "ade20k"),
        mixers([], [], "cuda", "ade20k"),
        front(Known(0.0), [], "cuda", "ade20k"),
        split([row(0, 50.0)], [], "ade20k"),
    ]
    assert {each.verdict for each in empty} == {UNDECIDED}
    for finding in empty:
        assert finding.settle
        for command in finding.settle:
            luma, verb, *words = command.split()
            assert (luma, verb in ("train", "profile", "scaling")) == ("luma", True)
            names = [word for word in words[: words.index(next(w for w in words if w.startswith("--")))]]
            for name in names:
                assert resolve(name).architecture
