"""LUMA's options cost what the closed form says: equal to the meta count and to the parameters that exist."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from option_backbones import MODELS

from luma_cli.catalogue.head_cost import head_macs, head_params
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure.facts import backbone_facts, segmenter_cost

COSTED = [
    "test_vit",
    "swin",
    "convnext",
    "dinov2",
    "hiera",
    "test_efficientnet",
    "mvitv2_tiny",
    "nextvit_small",
    "pvt_v2_b0",
    "davit_tiny",
]


@pytest.fixture(scope="module")
def costed() -> dict:
    built = {str(name): build(MODELS.get(name, name), 64, head="none", device="meta").backbone for name in COSTED}
    return {name: (backbone, backbone_facts(backbone)) for name, backbone in built.items()}


@settings(max_examples=60)
@given(
    name=st.sampled_from(COSTED),
    l2=st.integers(1, 6),
    tap=st.sampled_from(["output", "input"]),
    ffn=st.sampled_from(["auto", "fresh"]),
    prefix=st.booleans(),
    width_cap=st.sampled_from([20, 768]),
    num_queries=st.integers(1, 7),
    design=st.fixed_dictionaries(
        {
            "mask_stride": st.sampled_from([0, 4, 8, 16]),
            "layer_scale": st.booleans(),
            "qkv_bias": st.booleans(),
            "read_norm": st.sampled_from(["own", "shared"]),
            "query_norm": st.booleans(),
        }
    ),
)
def test_the_closed_form_is_what_exists_and_what_is_counted(
    costed, name, l2, tap, ffn, prefix, width_cap, num_queries, design
):
    backbone, facts = costed[str(name)]
    depth = len(backbone.sites.found)
    config = HeadConfig(
        l2=min(l2, depth), tap=tap, ffn=ffn, prefix=prefix and facts.num_prefix_tokens > 0, width_cap=width_cap,
        num_queries=num_queries, num_classes=3, **design,
    )  # fmt: skip
    with torch.device("meta"):
        counted = segmenter_cost(Segmenter(backbone, config))
    assert (head_macs(facts, config), head_params(facts, config)) == (counted.head_macs, counted.head_params)
    assert counted.complete
