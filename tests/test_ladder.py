"""The systems from ViT-Adapter + Mask2Former to EoMT: their counts, and that each trains, resumes and is exported.

Published: arXiv 2503.19108, Tables 1, 3 and B, with DINOv2 at 640 px, 200 queries and 133 classes. Its 700 GFLOPs of
rung 1 with ViT-L are an error: fvcore counts 740 on the same modules.
"""

from __future__ import annotations

from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
import torch
from drawn_data import drawn
from run_samples import curve

from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.costs import BackboneFacts, load_costs
from luma_cli.catalogue.head_cost import head_macs, head_params
from luma_cli.catalogue.heads import LADDER, HeadConfig, HeadName
from luma_cli.catalogue.names import resolve
from luma_cli.errors import BuildError, UsageError
from luma_cli.export.export import export
from luma_cli.head.mask2former import Mask2FormerHead
from luma_cli.head.segmenter import build
from luma_cli.measure.cost import Cost, CountJob
from luma_cli.measure.facts import answer, backbone_facts
from luma_cli.store.database import open_read
from luma_cli.train import loop as events
from luma_cli.train.checkpoint import load_checkpoint
from luma_cli.train.checkpoints import latest_sound
from luma_cli.train.config import Given, Settings
from luma_cli.train.run import Outcome, train_run
from luma_cli.train.run_folder import open_run

# Millions of parameters and GMACs of each rung, 0 to 5.
EXPECTED = {
    "small": ((46.56, 165.1), (44.58, 144.0), (39.53, 89.9), (38.15, 85.5), (23.98, 88.5), (23.98, 67.8)),
    "base": ((120.96, 346.7), (116.76, 291.7), (111.70, 237.5), (106.57, 228.9), (93.66, 285.8), (93.66, 215.5)),
    "large": ((348.67, 830.0), (342.26, 740.1), (337.21, 686.0), (328.27, 673.2), (316.70, 827.0), (316.70, 668.0)),
    "giant": (
        *((1208.65, 2509.1), (1196.11, 2320.7), (1191.06, 2266.5)),
        *((1171.36, 2242.3), (1163.62, 2686.4), (1163.62, 2260.1)),
    ),
}


@cache
def dinov2(size: str) -> BackboneFacts:
    spec = resolve(f"vit_{size}_patch14_reg4_dinov2")
    return backbone_facts(create_backbone(spec, 640, device="meta"))


@pytest.mark.parametrize("rung", range(6))
@pytest.mark.parametrize("size", EXPECTED)
def test_parameters_and_multiply_adds_are_the_published_ones(size, rung):
    facts, (name, variant) = dinov2(size), LADDER[rung]
    head = HeadConfig(name, 200, 133, variant=variant)
    params, gmacs = EXPECTED[size][rung]
    assert (facts.params + head_params(facts, head)) / 1e6 == pytest.approx(params, abs=0.006)
    assert (facts.macs + head_macs(facts, head)) / 1e9 == pytest.approx(gmacs, abs=0.06)


@pytest.mark.parametrize(
    ("backbone", "side", "queries", "params"),
    [  # arXiv 2112.01527, Table 1
        ("swin_tiny_patch4_window7_224", 224, 100, 47.44),
        ("swin_small_patch4_window7_224", 224, 100, 68.75),
        ("swin_base_patch4_window12_384", 384, 100, 106.92),
        ("swin_large_patch4_window12_384", 384, 200, 215.54),
        ("resnet50", 224, 100, 44.04),
        ("resnet101", 224, 100, 63.03),
        ("convnext_tiny", 224, 100, 47.74),
    ],
)
def test_mask2former_has_its_published_size(backbone, side, queries, params):
    counted = answer(CountJob(resolve(backbone), side, HeadConfig("mask2former", queries, 133)))
    assert isinstance(counted, Cost)
    assert counted.complete
    assert counted.params / 1e6 == pytest.approx(params, abs=0.006)


@pytest.mark.parametrize(("name", "variant"), LADDER[:5])
@pytest.mark.parametrize(
    "backbone",
    ["test_vit", "test_vit3", "vit_small_patch8_224", "pit_ti_224", "levit_128s", "swin_t", "test_efficientnet"],
)
def test_the_closed_form_is_what_is_counted_and_built(backbone, name, variant):
    """`answer` refuses a count that the closed form does not give."""
    side = 64 if backbone.startswith("test_") else 256 if backbone.startswith("levit") else 224
    counted = answer(CountJob(resolve(backbone), side, HeadConfig(name, 9, 5, variant=variant)))
    if isinstance(counted, Cost):
        assert counted.complete
    else:
        assert counted.kind == "BuildError"
        assert backbone not in ("test_vit", "test_vit3")


def test_the_shipped_table_prices_every_rung_without_counting():
    facts = load_costs()["vit_base_patch16_224", 512]
    costs = [head_macs(facts, HeadConfig(name, variant=variant)) for name, variant in LADDER]
    assert costs == sorted(costs, reverse=True)[:2] + costs[2:]
    assert min(costs) == costs[-1]


def test_a_rung_belongs_to_its_head():
    with pytest.raises(UsageError, match="variant is 'masked'"):
        HeadConfig("mask2former", variant="masked")
    assert HeadConfig("mask2former", variant="adapter").design == "adapter"
    assert HeadConfig("eomt").identity() != HeadConfig("eomt", variant="masked").identity()


def test_the_adapter_needs_patches_of_16_pixels():
    with pytest.raises(BuildError, match="not 8; use --head mask2former without --adapter"):
        build("vit_small_patch8_224", 224, head=HeadConfig("mask2former", variant="adapter"), device="meta")


def test_masked_eomt_attends_to_its_masks_at_inference():
    plain, masked = (build("test_vit", 64, head=HeadConfig("eomt", 6, 4, variant=v)) for v in ("paper-page", "masked"))
    masked.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain.predictions(images)[-1]  # a fresh head's first step masks every query
        assert torch.equal(masked(images).mask_logits, expected.mask_logits)
        assert not torch.equal(plain(images).mask_logits, expected.mask_logits)


# trained


NUM_STEPS = 6


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(rung: tuple[HeadName, str], out: Path, on_event=lambda event: None) -> Outcome:
    """A quick run of test_vit on drawn images of 64 px, validated at its end."""
    name, variant = rung
    steps = (f"steps={NUM_STEPS}", "epochs=0", "batch=2", "warmup_head_steps=1", "warmup_backbone_steps=1")
    given = Given(
        backbone="test_vit",
        data="ade20k",
        root=str(drawn()),
        resolution=64,
        recipe="smoke",
        changes=(*steps, "num_points=64", "lr=5e-4"),
        head={"name": name, "num_queries": 8, "variant": variant},
        accumulate=1,
    )
    return train_run(given, Settings(device="cpu", out=out, checkpoint_steps=1), on_event)


def losses(outcome: Outcome) -> list[float]:
    with closing(open_read()) as connection:
        return [value for _, value in curve(connection, outcome.run_id, "train/loss")]


@pytest.mark.parametrize("rung", [LADDER[0], LADDER[1], LADDER[2], LADDER[4]])
def test_a_few_steps_lower_the_loss(rung, tmp_path):
    found = losses(train(rung, tmp_path / "run"))
    assert found[-1] < 0.95 * found[0]


def test_a_resumed_run_is_the_same_to_the_last_bit(tmp_path):
    def crash(event: events.Event) -> None:
        if isinstance(event, events.Stepped) and event.step == NUM_STEPS // 2:
            raise KeyError("stands for whatever ends a process")

    whole = train(LADDER[3], tmp_path / "whole")
    with pytest.raises(KeyError):
        train(LADDER[3], tmp_path / "stopped", crash)
    again = train_run(Given(), Settings(device="cpu", resume=str(tmp_path / "stopped")))
    assert losses(whole)[-1] == losses(again)[-1] < 0.9 * losses(whole)[0]
    ended, resumed = (load_checkpoint(latest_sound(open_run(tmp_path / name)).path) for name in ("whole", "stopped"))
    assert ended.step == resumed.step == NUM_STEPS
    assert all(torch.equal(ended.model[name], resumed.model[name]) for name in ended.model)


def test_exported_to_onnx_it_computes_the_same(tmp_path):
    model = build("test_vit", 64, head=HeadConfig("mask2former", 5, 4))
    assert isinstance(model.head, Mask2FormerHead)
    del model.head.decoder.layers[2:], model.head.pixels.layers[1:]  # the others are like them
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = export(model, tmp_path / "model.onnx")
    assert max(each.relative for each in found.agreements) < 1e-4


def test_its_graph_takes_any_number_of_images(tmp_path):
    model = build("test_vit", 64, head=HeadConfig("mask2former", 5, 4, variant="adapter"))
    assert isinstance(model.head, Mask2FormerHead)
    del model.head.decoder.layers[2:], model.head.pixels.layers[1:]
    found = export(model, tmp_path / "model.pt2", "torch-export", batch=0)
    assert max(each.relative for each in found.agreements) < 1e-4
