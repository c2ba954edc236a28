"""What mixtures of experts cost: executed multiply-adds in closed form, and the parameters that one token meets."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest
import torch
from tiny_backbones import spec

from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue import listing
from luma_cli.catalogue.costs import BackboneFacts, read_costs
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.head.segmenter import build
from luma_cli.isotropic.mixtures import SoftMlp, SwitchMlp, VMoeMlp
from luma_cli.measure.cost import cost_from_facts
from luma_cli.measure.cost_table import table_text
from luma_cli.measure.count import count
from luma_cli.measure.facts import backbone_facts, num_active_parameters, segmenter_cost
from luma_cli.report.catalogue import listing_json, print_listing, print_sheet, sheet_json
from luma_cli.report.profiles import cost_row, print_costs

WIDTH, HIDDEN, NUM_EXPERTS, NUM_TOKENS = 24, 96, 8, 197
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(("make", "choices", "factor"), [(SwitchMlp, 1, 1.25), (VMoeMlp, 2, 1.05)])
def test_a_routed_ffn_costs_its_router_and_its_full_buffers(make, choices, factor):
    with torch.device("meta"):
        mlp = make(WIDTH, HIDDEN, num_experts=NUM_EXPERTS, capacity_factor=factor).eval()
        counted = count(mlp, torch.empty(3, NUM_TOKENS, WIDTH))
    capacity = math.ceil(factor * choices * NUM_TOKENS / NUM_EXPERTS)
    router, experts = NUM_TOKENS * WIDTH * NUM_EXPERTS, 2 * NUM_EXPERTS * capacity * WIDTH * HIDDEN
    assert counted.macs == 3 * (router + experts)
    assert counted.complete


def test_a_soft_ffn_costs_its_logits_its_mixtures_and_its_slots():
    with torch.device("meta"):
        mlp = SoftMlp(WIDTH, HIDDEN, num_experts=NUM_EXPERTS, slots_per_expert=5).eval()
        counted = count(mlp, torch.empty(3, NUM_TOKENS, WIDTH))
    assert counted.macs == 3 * (3 * NUM_TOKENS * WIDTH * 40 + 2 * 40 * WIDTH * HIDDEN)
    assert counted.complete


@pytest.mark.parametrize(("kind", "num_choices"), [("switch_vit", 1), ("vmoe_vit", 2)])
def test_a_query_runs_every_expert_once(kind, num_choices):
    made = create_backbone(resolve(f"{kind}_t"), 64, device="meta")
    facts = backbone_facts(made)
    assert facts.query_ffn_macs == 192 * 8 + 8 * 2 * 192 * 768
    assert facts.complete
    expert = 2 * 192 * 768 + 768 + 192
    blocks = {"switch_vit": 12, "vmoe_vit": 6}[kind]
    assert facts.params - facts.active_params == blocks * (8 - num_choices) * expert


@pytest.mark.parametrize("name", ["test_vit", "softmoe_vit_tiny_patch16_224"])
def test_all_parameters_are_met_where_nothing_is_routed(name):
    arguments = {} if name == "test_vit" else {"arguments": TINY}
    facts = backbone_facts(create_backbone(spec(name, **arguments), 64, device="meta"))
    assert facts.active_params == facts.params


def test_counted_and_predicted_costs_agree():
    made = build("switch_vit_t", 64, device="meta")
    counted = segmenter_cost(made)
    predicted = cost_from_facts(resolve("switch_vit_t"), backbone_facts(made.backbone), HeadConfig(), "counted")
    assert predicted == replace(counted, architecture=predicted.architecture)
    assert counted.active_params == num_active_parameters(made) < counted.params


def test_a_table_without_the_column_means_all_parameters(tmp_path):
    facts = backbone_facts(create_backbone(resolve("switch_vit_t"), 64, device="meta"))
    path = tmp_path / "costs.csv"
    path.write_text(table_text([facts]))
    assert read_costs(path)[facts.architecture, 64] == facts
    rows = [
        {k: v for k, v in row.items() if k != "active_params"} for row in csv.DictReader(io.StringIO(path.read_text()))
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert read_costs(path)[facts.architecture, 64].met_params == facts.params


@pytest.fixture
def table() -> dict[tuple[str, int], BackboneFacts]:
    names = {"switch_vit_t": "switch_vit_tiny_patch16_224", "vit_t": "vit_tiny_patch16_224"}
    return {
        (architecture, 512): replace(
            backbone_facts(create_backbone(resolve(name), 64, device="meta")), resolution=512, num_tokens=1024
        )
        for name, architecture in names.items()
    }


def test_a_column_of_active_parameters_only_where_some_are_idle(table, capsys):
    counted = [
        (found, cost_from_facts(found, table[found.architecture, 512], HeadConfig(name="none")))
        for found in map(resolve, ("vit_t", "switch_vit_t"))
    ]
    print_costs(counted[:1])
    assert "active" not in capsys.readouterr().out
    print_costs(counted)
    lines = capsys.readouterr().out.splitlines()
    dense, routed = (cost for _, cost in counted)
    assert lines[0].endswith("active M: parameters that one token uses")
    assert [line.split("\t")[-1] for line in lines[1:]] == [
        "active M",
        f"{dense.params / 1e6:.1f}",
        f"{routed.active_params / 1e6:.1f}",
    ]
    assert cost_row(*counted[1])["active_params"] == routed.active_params < routed.params
    print_costs(counted, as_csv=True)
    assert next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["active_params"] == str(dense.params)


def test_lists_and_sheets_show_them_too(table, monkeypatch, capsys):
    monkeypatch.setattr(listing, "load_costs", lambda: table)
    facts = table["switch_vit_tiny_patch16_224", 512]
    found = listing.list_backbones(["switch_vit_t", "vit_t", "vit_s"])
    print_listing(found)
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert [row[3:5] for row in rows] == [
        ["params M", "active M"],
        [f"{facts.params / 1e6:.1f}", f"{facts.active_params / 1e6:.1f}"],
        ["5.5", "5.5"],
        ["-", "-"],
    ]
    shown = {row["backbone"]: row["backbone_active_params"] for row in listing_json(found)["backbones"]}
    assert shown["switch_vit_t"] == facts.active_params
    assert shown["vit_s"] is None
    print_listing(listing.list_backbones(["vit_t"]))
    assert "active" not in capsys.readouterr().out
    sheet = listing.show("switch_vit_t")
    print_sheet(sheet)
    assert "active M" in capsys.readouterr().out
    (row,) = json.loads(json.dumps(sheet_json(sheet)))["costs"]
    assert row["params"] - row["active_params"] == facts.params - facts.active_params
