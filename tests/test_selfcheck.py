"""The self-check must fail when the FFN, its scale or its norm is missing: each fault is injected into the rule."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny_backbones import KINDS, make, shared
from torch.nn import Parameter

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.query_ffn import QueryFfn, part
from luma_cli.backbone.selfcheck import check, judge, observe, redraw_scales, residual


def verdict_without(backbone: Backbone, dropped: str):  # type: ignore[no-untyped-def]
    """The verdict on an adapter that forgets one part of the branch, watched by the true rule."""
    generator = torch.Generator().manual_seed(0)
    twin = copy.deepcopy(backbone)
    redraw_scales(twin.ffn, generator)
    with torch.no_grad():
        seen = observe(twin, torch.randn(1, 3, twin.resolution, twin.resolution, generator=generator))
        truth = residual(twin.ffn, seen)
        rule = twin.ffn.rule
        faulty = QueryFfn(
            twin.ffn.block, replace(rule, branch=tuple(p for p in rule.branch if p != dropped), residual="sum")
        )
        return judge(faulty, seen, truth)


def working_parts(backbone: Backbone) -> list[str]:
    """Parts of the branch that hold parameters."""
    ffn = backbone.ffn
    found = {name: part(ffn.block, name) for name in ffn.rule.branch}
    return [name for name, p in found.items() if isinstance(p, Parameter) or (p and any(True for _ in p.parameters()))]


@pytest.mark.parametrize("name", KINDS)
def test_a_forgotten_part_is_caught(name: str) -> None:
    backbone = shared(name)
    parts = working_parts(backbone)
    assert parts
    for dropped in parts:
        verdict = verdict_without(backbone, dropped)
        assert verdict.status == "wrong", dropped
        assert verdict.error > 1e-2, dropped


def test_forgetting_nothing_is_no_fault() -> None:
    assert verdict_without(shared("test_vit"), "").status == "exact"


def test_without_redrawn_scales_a_missing_ffn_would_pass() -> None:
    """Why scales are redrawn: at their initial 1e-5 the block hardly changes Z, and the verdict must not be `exact`."""
    backbone = make("cait_xxs24_224")
    with torch.no_grad():
        seen = observe(backbone, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        verdict = judge(backbone.ffn, seen, residual(backbone.ffn, seen))
    assert verdict.error <= 1e-4
    assert verdict.status == "wrong"
    assert "nothing is proved" in verdict.reason


def test_the_wrong_gate_row_is_caught() -> None:
    backbone = copy.deepcopy(shared("efficientvim_m1"))
    redraw_scales(backbone.ffn, torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = observe(backbone, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        truth = residual(backbone.ffn, seen)
        assert judge(backbone.ffn, seen, truth).status == "exact"
        faulty = QueryFfn(backbone.ffn.block, replace(backbone.ffn.rule, gate_row=2))
        assert judge(faulty, seen, truth).status == "wrong"


def test_the_backbone_is_left_as_it_was() -> None:
    backbone = make("test_vit")
    before = copy.deepcopy(backbone.state_dict())
    check(backbone)
    torch.testing.assert_close(backbone.state_dict(), before, rtol=0, atol=0)
    assert not backbone.ffn.block._forward_hooks
