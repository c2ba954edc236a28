"""docs/reference/coverage.md is about the installed timm, has every module, and says what the code finds today."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest
import timm
from tiny_backbones import spec

from luma_cli.backbone.coverage import Row, read_page, row, timm_modules
from luma_cli.backbone.create import create_backbone

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "coverage.md"
TEXT = PAGE.read_text(encoding="utf-8")
VERSION, ROWS = read_page(TEXT)
FIRST: dict[str, dict[str, str]] = {}
for cells in ROWS:
    FIRST.setdefault(cells["module"], cells)

current = pytest.mark.skipif(timm.__version__ != VERSION, reason=f"the page is about timm {VERSION}")


@current
def test_every_module_has_a_row() -> None:
    assert sorted(FIRST) == timm_modules()


@current
@pytest.mark.parametrize(
    "module", ["byobnet", "convnext", "efficientnet", "iformer", "levit", "mambaout", "maxxvit", "mlp_mixer", "xcit"]
)
def test_rows_are_what_the_code_finds(module: str) -> None:
    old = FIRST[module]
    new = {key: str(value) for key, value in asdict(row(module, old["model"])).items()}
    assert {key: value for key, value in new.items() if key != "error"} == {
        key: value for key, value in old.items() if key != "error"
    }


def test_at_least_92_modules_attach_and_nothing_is_wrong() -> None:
    assert sum(bool(cells["map"]) for cells in FIRST.values()) >= 92
    assert {cells["proof"] for cells in ROWS} == {"exact", "spatial", ""}
    assert all(cells["note"] for cells in ROWS if cells["ffn"] != "reused")
    assert all(float(cells["error"]) <= 1e-4 for cells in ROWS if cells["ffn"] == "reused")


def test_what_was_right_in_the_first_probe_still_is() -> None:
    """Modules whose token-wise FFN the design's first probe reproduced, without the rows that took a wrong block."""
    exact = {
        "beit", "cait", "convit", "convnext", "deepseek_vit", "edgenext", "efficientformer", "eva", "focalnet", "gcvit",
        "hiera", "hieradet_sam2", "inception_next", "levit", "maxxvit", "metaformer", "mvitv2", "naflexvit", "nest",
        "nextvit", "pit", "pvt_v2", "qwen3_vit", "sequencer", "swin_transformer", "swin_transformer_v2", "tiny_vit",
        "twins", "visformer", "vision_transformer", "vision_transformer_relpos", "efficientformer_v2",
    }  # fmt: skip
    assert {module for module in exact if FIRST[module]["ffn"] != "reused"} == set()


def test_the_page_reads_back() -> None:
    assert list(ROWS[0]) == [field.name for field in fields(Row)]
    assert create_backbone(spec("test_convnext"), 64).ffn_kind == FIRST["convnext"]["kind"]
