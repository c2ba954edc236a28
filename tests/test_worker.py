"""The real worker, as a process: from a plan to profiles, offline, with one's own backbone too."""

from __future__ import annotations

import json
from pathlib import Path

from luma_cli.catalogue.names import resolve
from luma_cli.measure import sweep

OWN = """
import torch
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

@register_model
def my_tiny_vit(pretrained=False, **kwargs):
    print("a backbone that talks")
    settings = dict(img_size=64, patch_size=16, embed_dim=48, depth=2, num_heads=3)
    return VisionTransformer(**{**settings, **{k: v for k, v in kwargs.items() if k in ("img_size", "num_classes")}})
"""


def test_a_sweep_of_real_workers() -> None:
    stages: list[str] = []
    settings = sweep.SweepSettings(max_seconds=0.05, isolation="backbone")
    configurations = sweep.plan([resolve("test_vit")], [64, 96], sweep.template(batch=1))
    profiles = sweep.measure_all(
        configurations, settings, on_event=lambda event: stages.append(event.text) if event.kind == "stage" else None
    )
    assert [p.status for p in profiles] == ["ok", "ok"], [p.reason for p in profiles]
    assert stages.count("importing torch") == 1
    assert stages.count("building") == 2
    first = profiles[0]
    assert first.facts["macs"] > 0
    assert first.facts["ffn"] == "reused"
    assert first.environment.identity["num_threads"] == first.environment.provenance["threads"]
    assert first.fingerprint != profiles[1].fingerprint
    json.dumps(first.notes, allow_nan=False)


def test_ones_own_backbone_reaches_the_worker(tmp_path: Path) -> None:
    module = tmp_path / "mine.py"
    module.write_text(OWN)
    settings = sweep.SweepSettings(max_seconds=0.05, imports=(str(module),))
    spec = resolve("my_tiny_vit", imported=True)
    (profile,) = sweep.measure_all(sweep.plan([spec], [64], sweep.template(batch=1)), settings)
    assert profile.status == "ok", profile.reason
    assert profile.configuration.backbone_hash
    assert profile.facts["params"] > 0


def test_a_module_that_fails_to_import_is_said(tmp_path: Path) -> None:
    module = tmp_path / "broken.py"
    module.write_text("raise RuntimeError('not today')\n")
    settings = sweep.SweepSettings(imports=(str(module),))
    spec = resolve("my_tiny_vit", imported=True)
    (profile,) = sweep.measure_all(sweep.plan([spec], [64], sweep.template()), settings, facts=lambda c, i: [{}])
    assert profile.status == "failed"
    assert "not today" in profile.reason


def test_an_unknown_backbone_is_a_failure_not_a_crash() -> None:
    from luma_cli.catalogue.spec import BackboneSpec

    spec = BackboneSpec("no_such_net", "no_such_net", "no_such_net")
    (profile,) = sweep.measure_all(sweep.plan([spec], [64], sweep.template()), facts=lambda c, i: [{}])
    assert profile.status == "failed"
    assert "no_such_net" in profile.reason
