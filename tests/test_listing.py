"""What `luma list` and `luma show` tell, with a made-up cost table."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from luma_cli.catalogue import listing
from luma_cli.catalogue.cards import load_cards
from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.errors import UnknownName


def facts(architecture: str, resolution: int, macs: int) -> BackboneFacts:
    return BackboneFacts(
        architecture, resolution, macs, 1_000, 10, 768, 16, 1024, "reused", 5, 12, True, True, "", "1.0.31"
    )


TABLE: Mapping[tuple[str, int], BackboneFacts] = {
    (row.architecture, row.resolution): row
    for row in (
        facts("vit_base_patch16_224", 1024, 4_000),
        facts("vit_base_patch16_224", 512, 1_000),
        facts("vit_base_patch16_dinov3", 512, 1_100),
        facts("convnext_base", 512, 900),
        facts("swin_tiny_patch4_window7_224", 512, 300),
    )
}


@pytest.fixture(autouse=True)
def costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "load_costs", lambda: TABLE)


def shown(found: listing.Listing) -> list[str]:
    return [row.spec.name for row in found.rows]


def test_without_filters_every_card_size_once() -> None:
    found = listing.list_backbones()
    assert len(found.rows) == sum(len(card.sizes) for card in load_cards().values())
    assert sum(found.families.values()) == len(found.rows)
    assert list(found.families) == ["isotropic", "hierarchical", "convolutional", "hybrid", "moe"]


def test_costs_are_those_of_the_resolution_and_unknown_where_the_table_has_none() -> None:
    rows = {row.spec.name: row for row in listing.list_backbones(["vit_b", "vit_s"], resolution=1024).rows}
    assert rows["vit_b"].macs == 4_000
    assert rows["vit_b"].params == 1_000
    assert (rows["vit_s"].macs, rows["vit_s"].params) == (None, None)


def test_a_bound_keeps_what_fits_and_counts_what_it_could_not_judge() -> None:
    found = listing.list_backbones(["vit_b", "convnext_b", "swin_t", "vit_s"], max_macs=950)
    assert shown(found) == ["convnext_b", "swin_t"]
    assert found.num_without_cost == 1
    assert listing.list_backbones(["vit_b"], max_macs=1_000).rows


def test_family_and_pretraining_narrow_the_list() -> None:
    assert {row.spec.family for row in listing.list_backbones(family="hybrid").rows} == {"hybrid"}
    assert {row.spec.card for row in listing.list_backbones(family="moe").rows} == {
        "switch_vit",
        "vmoe_vit",
        "softmoe_vit",
    }
    dinov3 = listing.list_backbones(pretraining="dinov3")
    assert {"vit_b.dinov3", "convnext_b.dinov3"} <= set(shown(dinov3))
    assert {row.spec.pretraining for row in dinov3.rows} == {"dinov3"}
    assert shown(listing.list_backbones(["vit_?"], pretraining="in1k")) == [
        "vit_s.supervised_in1k",
        "vit_b.supervised_in1k",
    ]


def test_a_pretraining_row_has_the_cost_of_its_own_architecture() -> None:
    (row,) = listing.list_backbones(["vit_b.dinov3"]).rows
    assert (row.macs, row.pretraining, row.unreleased) == (1_100, ("dinov3",), ())


def test_what_has_no_public_weights_is_kept_apart() -> None:
    (row,) = listing.list_backbones(["vit_b"]).rows
    assert "mae" in row.pretraining
    assert "ijepa" in row.unreleased
    (row,) = listing.list_backbones(["vit_b.ijepa"]).rows
    assert (row.pretraining, row.unreleased) == ((), ("ijepa",))


def test_a_timm_model_without_card_shows_the_objectives_of_its_tags() -> None:
    (row,) = listing.list_backbones(["regnety_320"]).rows
    assert {"seer", "supervised_in1k", "weakly_supervised"} <= set(row.pretraining)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "isotropc"}, "no family 'isotropc'; choose one of isotropic, hierarchical"),
        ({"pretraining": "dinov4"}, "no pretraining 'dinov4'; did you mean dinov"),
        ({"patterns": ["zzz*"]}, "matches 'zzz"),
    ],
)
def test_a_filter_that_means_nothing_is_unknown(options: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        listing.list_backbones(**options)  # type: ignore[arg-type]


def test_a_sheet_tells_all_that_is_known() -> None:
    sheet = listing.show("vit_b")
    assert sheet.card is not None
    assert sheet.size is not None
    assert (sheet.card.name, sheet.size.name) == ("vit", "b")
    assert (sheet.module, sheet.model_class) == ("vision_transformer", "vision_transformer.VisionTransformer")
    assert [row.resolution for row in sheet.costs] == [512, 1024]
    tags = {row.timm_name: row for row in sheet.tags}
    assert tags["vit_base_patch16_224.mae"] == listing.TagRow("vit_base_patch16_224.mae", "mae", "cc-by-nc-4.0", True)
    assert not tags["vit_base_patch16_224.bamboo"].listed
    assert "vit_base_patch16_dinov3.lvd1689m" in tags
    objectives = {row.objective.name: row.sizes for row in sheet.pretraining}
    assert objectives["sam"] == {
        "b": "samvit_base_patch16.sa1b",
        "l": "samvit_large_patch16.sa1b",
        "h": "samvit_huge_patch16.sa1b",
    }
    assert objectives["ijepa"]["b"] == ""
    assert sheet.ffn == "reused"


def test_a_sheet_of_a_model_without_card() -> None:
    sheet = listing.show("test_efficientnet")
    assert (sheet.card, sheet.size) == (None, None)
    assert (sheet.pretraining, sheet.costs, sheet.ffn) == ((), (), "")
    assert sheet.rule is not None
    assert sheet.rule.family == sheet.spec.family == "convolutional"
    assert [row.objective for row in sheet.tags] == ["supervised_in1k"]


def test_a_sheet_of_a_hub_repository_that_says_nothing() -> None:
    sheet = listing.show("hf-hub:somebody/model")
    assert (sheet.rule, sheet.ffn, sheet.tags, sheet.costs) == (None, "", (), ())
