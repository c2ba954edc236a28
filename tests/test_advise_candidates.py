"""Candidates from cards and costs, measured rows from profiles, and budgets held against both."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from advise_world import candidate, conditions, measured
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.advise import question as held
from luma_cli.advise.candidates import build, with_measured
from luma_cli.advise.question import Priced
from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.catalogue.head_cost import head_macs, head_params
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BadResolution, UsageError
from luma_cli.speed.quantity import Quantity
from luma_cli.store import database
from luma_cli.store.profiles import Measured, measurements, save
from luma_cli.store.records import Configuration, Environment, Metric, Profile
from luma_cli.units import parse_budget

FACTS = BackboneFacts(
    architecture="vit_a", resolution=512, macs=100_000_000_000, params=86_000_000, activations=1, width=768, stride=16,
    num_tokens=1024, ffn="reused", query_ffn_macs=4_718_592, num_heads=12, final_norm=True, complete=True,
    unknown_ops="", timm="1.0.31",
)  # fmt: skip
SPECS = [
    BackboneSpec("vit_a.mae", "vit_a.mae", "vit_a", tag="mae", card="vit", family="isotropic", pretraining="mae"),
    BackboneSpec("vit_a.dino", "vit_a.dino", "vit_a", card="vit", pretraining="dino", public_weights=False),
    BackboneSpec("vit_b.mae", "vit_b.mae", "vit_b", card="vit", pretraining="mae"),
]
COSTS = {("vit_a", 512): FACTS, ("vit_a", 640): replace(FACTS, resolution=640, num_tokens=1600, complete=False)}


class TestBuild:
    def test_cost_is_backbone_plus_head_of_the_dataset(self) -> None:
        ade, cityscapes = (build(SPECS, COSTS, dataset, [512])[0] for dataset in ("ade20k", "cityscapes"))
        head = HeadConfig(num_classes=150)
        assert ade.macs == FACTS.macs + head_macs(FACTS, head)
        assert ade.params == FACTS.params + head_params(FACTS, head)
        assert ade.macs is not None
        assert cityscapes.macs is not None
        assert ade.macs - cityscapes.macs == 100 * 768 * (150 - 19)

    def test_every_pretraining_and_size_with_a_known_cost(self) -> None:
        found = build(SPECS, COSTS, "ade20k", [512, 640])
        assert [(each.name, each.resolution, each.public_weights) for each in found] == [
            ("vit_a.mae", 512, True),
            ("vit_a.mae", 640, True),
            ("vit_a.dino", 512, False),
            ("vit_a.dino", 640, False),
        ]

    def test_an_incomplete_count_is_no_number(self) -> None:
        assert [each.macs is None for each in build(SPECS[:1], COSTS, "ade20k", [512, 640])] == [False, True]

    def test_a_size_without_costs_names_those_with(self) -> None:
        with pytest.raises(BadResolution, match="no cost is known at 13 px; use --res 512, 640"):
            build(SPECS, COSTS, "ade20k", [512, 13])

    def test_an_unknown_dataset(self) -> None:
        with pytest.raises(UsageError, match="use ade20k or cityscapes"):
            build(SPECS, COSTS, "coco")


UNITS = {"throughput": "images/s", "latency_eager": "ms", "memory_allocated": "bytes", "energy": "J"}


def metric(name: str, value: float, noisy: bool = False) -> Metric:
    return Metric(name, UNITS[name], value, value, value, 30, noisy=noisy)


def kept(*profiles: Profile) -> list[Measured]:
    """What the advisor reads after the profiles went through the store."""
    with closing(database.open_write()) as db:
        for each in profiles:
            save(db, each)
        return measurements(db.conn)


def profile(status: str = "ok", notes: dict[str, Any] | None = None, **configuration: Any) -> Profile:
    values: dict[str, Any] = {"backbone": "vit_a", "timm_name": "vit_a", "resolution": 512}
    metrics = {
        name: metric(name, value)
        for name, value in {"throughput": 50.0, "latency_eager": 20.0, "memory_allocated": 2e9, "energy": 3.0}.items()
    }
    return Profile(
        Configuration(**{**values, **configuration}),
        Environment({"device_name": "Test CPU", "torch": "2.15"}),
        status,  # type: ignore[arg-type]
        facts={"macs": 5, "params": 6},
        metrics=metrics,
        notes=notes or {},
    )


class TestFromTheStore:
    def test_numbers_carry_over(self) -> None:
        (row,) = kept(profile())
        assert (row.latency_ms, row.images_per_second, row.memory_bytes, row.energy_joules) == (20.0, 50.0, 2e9, 3.0)
        assert (row.macs, row.params, row.conditions.device_name) == (5, 6, "Test CPU")

    @pytest.mark.parametrize(
        "other",
        [
            profile("oom"),
            profile("failed"),
            profile(part="backbone"),
            profile(part="head"),
            profile(head=HeadConfig(name="none")),
        ],
    )
    def test_what_is_no_whole_segmenter_is_left_out(self, other: Profile) -> None:
        assert kept(other) == []

    def test_a_fixed_batch_is_no_plateau(self) -> None:
        (row,) = kept(profile(batch=8))
        assert row.images_per_second is None
        assert row.latency_ms == 20.0

    def test_on_a_gpu_only_the_device_column_is_memory(self) -> None:
        (row,) = kept(profile(device="cuda:0"))
        assert row.memory_bytes is None
        assert row.conditions.device == "cuda"

    @pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"compile": "default"}, {"attention": "math"}])
    def test_conditions_follow_the_configuration(self, change: dict[str, str]) -> None:
        first, second = kept(profile(), profile(**change))
        assert first.conditions != second.conditions

    def test_libraries_are_conditions(self) -> None:
        newer = replace(profile(), environment=Environment({"device_name": "Test CPU", "torch": "2.16"}))
        first, second = kept(profile(), newer)
        assert first.conditions != second.conditions


class TestWithMeasured:
    CARD = candidate("vit_s.dinov3")

    def test_a_model_without_a_card_is_added_at_its_size(self) -> None:
        (_, added) = with_measured([self.CARD], [measured("test_vit.r160", resolution=160)], "luma")
        assert (added.name, added.resolution, added.macs, added.card) == ("test_vit.r160", 160, 10_000_000_000, "")

    def test_every_pretraining_of_a_card_at_another_size(self) -> None:
        mae = candidate("vit_s.mae", architecture=self.CARD.architecture)
        found = with_measured([self.CARD, mae], [measured("arch_vit_s", resolution=448)], "luma")
        assert [(each.name, each.resolution) for each in found[2:]] == [("vit_s.dinov3", 448), ("vit_s.mae", 448)]

    @pytest.mark.parametrize(
        "row",
        [
            measured("arch_vit_s"),
            measured("boat_net", resolution=448),
            measured("arch_vit_s", own_module=True, resolution=448),
            measured("arch_vit_s", conditions=conditions(head="eomt"), resolution=448),
        ],
    )
    def test_what_is_known_already_or_is_another_thing_adds_nothing(self, row: Measured) -> None:
        assert with_measured([self.CARD], [row], "luma") == [self.CARD]


@given(st.floats(0.1, 1e4), st.floats(0.1, 1e4), st.floats(1, 3))
def test_slack_is_positive_exactly_where_the_dear_end_fits(value: float, limit: float, factor: float) -> None:
    for text in (f"{limit:f}ms", f"{limit:f}fps"):
        budget = parse_budget(text)
        quantity = Quantity(budget.kind, value, value / factor, value * factor, "predicted")
        priced = Priced(candidate("a"), {budget.kind: quantity})
        assert (held.slack(priced, budget) >= 0) == (held.hold(priced, budget) == "within")


def test_candidates_cost_the_head_that_is_asked_for_and_leave_out_backbones_that_refuse_it() -> None:
    joins = replace(FACTS, joint_blocks="7077888x1536*12", no_joint="")
    refuses = replace(FACTS, architecture="vit_b", no_joint="needs global self-attention")
    costs = {("vit_a", 512): joins, ("vit_b", 512): refuses}
    found = build(SPECS, costs, "ade20k", [512], "eomt")
    assert {each.architecture for each in found} == {"vit_a"}
    head = HeadConfig(name="eomt")
    assert found[0].macs == joins.macs + head_macs(joins, head)
    assert found[0].params == joins.params + head_params(joins, head)
    assert {each.architecture for each in build(SPECS, costs, "ade20k", [512], "linear")} == {"vit_a", "vit_b"}
