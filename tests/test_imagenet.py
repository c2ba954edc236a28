"""ImageNet top-1 of exact checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from luma_cli.errors import BadCard
from luma_cli.evidence.evidence import read_top1, top1_percent


def test_every_name_is_a_checkpoint_and_every_figure_a_percentage() -> None:
    found = top1_percent()
    assert len(found) > 850
    assert all("." in name for name in found)
    assert all(30 < top1 < 92 for top1 in found.values())


def test_known_figures() -> None:
    assert top1_percent()["resnet50.a1_in1k"] == 80.382  # at 224 px; 81.24 is at 288
    assert "vit_base_patch16_dinov3.lvd1689m" not in top1_percent()  # no classifier, no top-1


def test_smallest_size_wins_whatever_the_order(tmp_path: Path) -> None:
    path = tmp_path / "top1.csv"
    path.write_text("timm,img_size,top1_percent\na.x,288,81\na.x,224,80\na.x,384,82\n")
    assert read_top1(path) == {"a.x": 80.0}


@pytest.mark.parametrize("row", ["a.x,224", "a.x,big,80", "a.x,224,nan", "a.x,224,800"])
def test_bad_rows_name_file_and_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "top1.csv"
    path.write_text(f"timm,img_size,top1_percent\n{row}\n")
    with pytest.raises(BadCard, match=r"top1\.csv, line 2"):
        read_top1(path)


def test_another_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "top1.csv"
    path.write_text("model,top1\n")
    with pytest.raises(BadCard, match="first line"):
        read_top1(path)
