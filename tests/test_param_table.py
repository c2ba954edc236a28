"""Parameters of timm's architectures: what ships is what counting gives."""

from __future__ import annotations

import csv
import io

import pytest

from luma_cli import files
from luma_cli.backbone.coverage import count_parameters, parameter_table

SHIPPED = {row["architecture"]: int(row["params"]) for row in files.read_csv(files.root() / "profiles" / "params.csv")}


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "mobilenetv2_100", "convnext_atto", "swin_tiny_patch4_window7_224"]
)
def test_the_shipped_counts_are_what_counting_gives(name):
    assert count_parameters(name) == SHIPPED[name]


def test_the_table_is_sorted_and_leaves_out_what_cannot_be_built():
    rows = list(csv.reader(io.StringIO(parameter_table(["resnet18", "no_such_network", "mobilenetv2_100"]))))
    assert rows == [["architecture", "params"], ["mobilenetv2_100", "2223872"], ["resnet18", "11176512"]]


def test_every_card_has_its_parameters():
    costs = {row["architecture"] for row in files.read_csv(files.root() / "profiles" / "costs.csv")}
    own = {name for name in costs if name not in SHIPPED}
    assert all("_vit" in name for name in own), sorted(own)
