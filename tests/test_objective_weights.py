"""Checkpoints of every objective's architecture, made small, saved in the hub's layout and read back offline.

The weights are random, the layout (keys, prefix tokens, patch and image size, config.json) is that of timm's own.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import save_for_hf
from tiny_backbones import spec
from torch import Tensor

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.names import resolve

SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}
STAGES: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
HALF = (0.5, 0.5, 0.5)
IMAGENET = (0.485, 0.456, 0.406)
REVISION = "0123456789abcdef0123456789abcdef01234567"
OPENAI = (0.48145466, 0.4578275, 0.40821073)


@dataclass(frozen=True)
class Case:
    """One card's choice for an objective. arguments: what makes it small; converted: what must be reported at 256 px.

    any_size: the model that timm builds for its own size takes any other, resampling its tables while it runs.
    """

    backbone: str
    converted: tuple[str, ...]
    mean: tuple[float, ...] = IMAGENET
    arguments: dict[str, Any] = field(default_factory=lambda: SMALL)
    any_size: bool = False

    @property
    def architecture(self) -> str:
        return resolve(self.backbone).architecture

    @property
    def native(self) -> int:
        """The size of the checkpoint in pixels."""
        return int(timm.get_pretrained_cfg(resolve(self.backbone).timm_name).input_size[1])


CASES = {
    case.backbone: case
    for case in (
        Case("vit_s.supervised_in1k", ("position embedding 14 x 14 -> 16 x 16 by bicubic resampling",), HALF),
        Case("swin_t.supervised_in21k", (), arguments=STAGES),
        Case("vit_s.deit3", ("position embedding 14 x 14 -> 16 x 16 by bicubic resampling",)),
        Case("vit_b.mae", ("position embedding 14 x 14 -> 16 x 16 by bicubic resampling",)),
        Case(
            "hiera_t.mae",
            ("position embedding 56 x 56 -> 64 x 64 by bicubic resampling",),
            arguments={"embed_dim": 16, "stages": (1, 1, 1, 1)},
        ),
        Case("beitv2_b.beitv2", ("2 tables of relative positions resampled, 27 x 27 -> 31 x 31",)),
        Case("vit_s.dino", ("position embedding 14 x 14 -> 16 x 16 by bicubic resampling",)),
        Case(
            "vit_s.dinov2",
            ("patch 14 -> 16 by resampling", "position embedding 37 x 37 -> 16 x 16 by bicubic resampling"),
        ),
        Case("vit_s.dinov3", ()),
        Case("convnext_t.dinov3", (), arguments={"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)}),
        Case("eva02_t.eva02", ("patch 14 -> 16 by resampling",), OPENAI),
        Case("vit_b.clip", ("position embedding 14 x 14 -> 16 x 16 by bicubic resampling",), OPENAI),
        Case("vit_b.siglip2", ("position embedding 32 x 32 -> 16 x 16 by bicubic resampling",), HALF),
        Case(
            "vit_b.sam",
            (
                "position embedding 64 x 64 -> 16 x 16 by bicubic resampling",
                "2 tables of relative positions resampled, 127 -> 31",
            ),
            arguments={**SMALL, "global_attn_indexes": (1,)},
            any_size=True,
        ),
        Case(
            "vit_h.ijepa",
            ("patch 14 -> 16 by resampling",),
        ),
    )
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@cache
def small_model(backbone: str) -> torch.nn.Module:
    """The architecture of the card's choice with few channels and layers, at its own patch and image size."""
    case = CASES[backbone]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = timm.create_model(resolve(backbone).timm_name, **case.arguments)
        for parameter in model.parameters():  # zeros (registers, biases) would equal zeros that were never loaded
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def saved(case: Case, folder: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors, written to `folder` as timm publishes models."""
    save_for_hf(small_model(case.backbone), str(folder), model_args=case.arguments, safe_serialization=True)
    (folder / "pytorch_model.bin").unlink(missing_ok=True)
    return load_file(folder / "model.safetensors")


def in_hub_cache(case: Case, cache_folder: Path) -> dict[str, Tensor]:
    """The same as a repository that `hf download owner/small` has left in the cache."""
    repository = cache_folder / "models--owner--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    return saved(case, repository / "snapshots" / REVISION)


def timms_features(case: Case, folder: Path, resolution: int) -> Tensor:
    """The map that timm gives at this size: after its own loading of `folder`, or of the model that was saved there."""
    model = small_model(case.backbone)
    if not case.any_size:
        size = {} if case.architecture.startswith("convnext") else {"img_size": resolution}
        patch = {"patch_size": 16} if "patch14" in case.architecture else {}
        with warnings.catch_warnings(action="ignore"):  # timm's interpolation of bias tables
            model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, **size, **patch).eval()
    features: list[Tensor] = model.forward_intermediates(images(resolution), indices=1, intermediates_only=True)
    return features[-1]


def images(resolution: int) -> Tensor:
    return torch.randn(1, 3, resolution, resolution, generator=torch.Generator().manual_seed(3))


def check_equal_where_nothing_was_resampled(backbone: Backbone, state: dict[str, Tensor]) -> None:
    own = {key: value for key, value in backbone.model.state_dict().items() if key in state}
    same = {key: value for key, value in own.items() if value.shape == state[key].shape}
    assert len(same) > len(own) / 2
    for key, value in same.items():
        assert torch.equal(value, state[key]), key


def reported(backbone: Backbone) -> tuple[str, ...]:
    """The conversions, what the map has no use for left out."""
    return tuple(text for text in backbone.weights.conversions if not text.startswith("left out"))


@EVERY_CASE
def test_a_folder_is_read_back_at_another_size(case: Case, tmp_path: Path) -> None:
    state = saved(case, tmp_path)
    backbone = create_backbone(spec(f"local-dir:{tmp_path}"), 256, weights="pretrained")
    check_equal_where_nothing_was_resampled(backbone, state)
    assert reported(backbone) == case.converted
    assert backbone.normalisation.mean == pytest.approx(case.mean)
    assert "config.json" in backbone.normalisation.source
    if case.backbone != "hiera_t.mae":  # timm itself refuses Hiera's weights at another size
        with torch.no_grad():
            torch.testing.assert_close(backbone(images(256)), timms_features(case, tmp_path, 256), rtol=1e-5, atol=1e-5)


@EVERY_CASE
def test_a_cached_repository_gives_timms_own_features_at_its_own_size(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    state = in_hub_cache(case, tmp_path)
    size = min(case.native, 512)  # a multiple of 16 where DINOv2's own 518 is none, and quick where SAM's 1024 is not
    backbone = create_backbone(spec("hf-hub:owner/small"), size, weights="pretrained")
    check_equal_where_nothing_was_resampled(backbone, state)
    if size == case.native and "patch14" not in case.architecture:
        assert reported(backbone) == ()
    folder = tmp_path / "models--owner--small" / "snapshots" / REVISION
    with torch.no_grad():
        ours, timms = backbone(images(size)), timms_features(case, folder, size)
    torch.testing.assert_close(ours, timms, rtol=1e-5, atol=1e-5)


def test_every_objective_of_the_benchmark_is_read_back() -> None:
    assert {resolve(name).pretraining for name in CASES} == {
        *("supervised_in1k", "supervised_in21k", "deit3", "mae", "beitv2", "dino", "dinov2", "dinov3", "eva02"),
        *("clip", "siglip2", "sam", "ijepa"),
    }
