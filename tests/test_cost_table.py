"""Reading the cost table: typed rows, and a row that is none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from luma_cli.catalogue.costs import BackboneFacts, read_costs
from luma_cli.errors import BadCard

HEADER = (
    "architecture,resolution,macs,params,activations,width,stride,num_tokens,ffn,query_ffn_macs,num_heads,final_norm,"
    "complete,unknown_ops,timm\n"
)
ROW = "vit_base_patch16_224,512,107030000000,86000000,1,768,16,1024,reused,4718592,12,{norm},True,,1.0.31\n"


@pytest.mark.parametrize(
    ("written", "meant"), [("True", True), ("true", True), ("1", True), ("False", False), ("0", False)]
)
def test_a_row_is_read_with_its_types(tmp_path: Path, written: str, meant: bool) -> None:
    path = tmp_path / "costs.csv"
    path.write_text("# made here\n" + HEADER + ROW.format(norm=written), encoding="utf-8")
    assert read_costs(path) == {
        ("vit_base_patch16_224", 512): BackboneFacts(
            architecture="vit_base_patch16_224",
            resolution=512,
            macs=107_030_000_000,
            params=86_000_000,
            activations=1,
            width=768,
            stride=16,
            num_tokens=1024,
            ffn="reused",
            query_ffn_macs=4_718_592,
            num_heads=12,
            final_norm=meant,
            complete=True,
            unknown_ops="",
            timm="1.0.31",
        )
    }


@pytest.mark.parametrize(
    "text",
    [
        HEADER + ROW.format(norm="perhaps"),
        HEADER + ROW.format(norm=""),
        HEADER + ROW.format(norm="True").replace(",512,", ",big,"),
        HEADER + ROW.format(norm="True").replace("reused", "borrowed"),
        HEADER.replace("macs,", "flops,", 1) + ROW.format(norm="True"),
        HEADER + "vit,512\n",
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadCard, match=r"costs.csv: row 1 "):
        read_costs(path)
