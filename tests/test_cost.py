"""Cost: the closed form against what exists and what is counted, and where facts come from."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from head_stand_in import StandIn
from hypothesis import given, settings
from hypothesis import strategies as st

from luma_cli.backbone.backbone import meta_twin
from luma_cli.catalogue.costs import BackboneFacts, load_costs
from luma_cli.catalogue.head_cost import head_macs, head_params
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BadResolution, BuildError, MeasureError, UnknownName, UsageError
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure import cost as cost_module
from luma_cli.measure import runner
from luma_cli.measure.cost import CostSources, CountJob, Refusal, cost, costs
from luma_cli.measure.facts import backbone_facts, num_parameters, segmenter_cost

CONFIGS = (
    HeadConfig(),
    HeadConfig(num_queries=7, num_classes=19),
    HeadConfig(ffn="fresh", width_cap=48),
    HeadConfig(ffn="fresh", num_queries=200, width_cap=10_000),
    HeadConfig(name="none"),
)
FAMILIES = (
    ("test_vit", 64),
    ("vit_base_patch16_224", 512),
    ("vit_base_patch16_dinov3", 256),
    ("swin_t", 224),
    ("convnext_b", 512),
    ("convnextv2_atto", 64),
    ("pvt_v2_b0", 224),
    ("poolformer_s12", 224),
    ("resnet50", 512),
    ("test_efficientnet", 96),
    ("levit_128s", 256),
    ("xcit_nano_12_p8_224", 224),
)


def facts(architecture="vit_base_patch16_224", resolution=512, **changes) -> BackboneFacts:
    values = {
        "macs": 107_027_122_176, "params": 86_434_560, "activations": 1, "width": 768, "stride": 16,
        "num_tokens": 1024, "ffn": "reused", "query_ffn_macs": 8 * 768**2, "num_heads": 12, "final_norm": True,
        "complete": True, "unknown_ops": "", "timm": version("timm"),
    }  # fmt: skip
    return BackboneFacts(architecture=architecture, resolution=resolution, **{**values, **changes})


def never(requests, imports):
    raise AssertionError(f"nothing should be counted, but {requests} was")


@pytest.mark.parametrize(("name", "resolution"), FAMILIES)
def test_the_closed_form_is_what_exists_and_what_is_counted(name, resolution):
    backbone = build(name, resolution, device="meta", head="none").backbone
    found = backbone_facts(backbone)
    for config in CONFIGS:
        with torch.device("meta"):
            counted = segmenter_cost(Segmenter(backbone, config))
        assert (head_macs(found, config), head_params(found, config)) == (counted.head_macs, counted.head_params), (
            config
        )
        assert (found.macs, found.params) == (counted.backbone_macs, counted.backbone_params)
        assert counted.complete


@settings(max_examples=25)
@given(
    width=st.integers(1, 40),
    stride=st.sampled_from([4, 7, 8, 14, 16, 32]),
    ffn=st.booleans(),
    final_norm=st.booleans(),
    config=st.builds(
        HeadConfig,
        num_queries=st.integers(1, 9),
        num_classes=st.integers(1, 9),
        ffn=st.sampled_from(["auto", "fresh"]),
        width_cap=st.integers(1, 40),
    ),
)
def test_the_closed_form_holds_for_any_head(width, stride, ffn, final_norm, config):
    backbone = StandIn(width, stride, resolution=stride * 4, ffn=ffn, final_norm=final_norm)
    segmenter = Segmenter(backbone, config)
    counted = segmenter_cost(segmenter)
    found = backbone_facts(backbone)
    assert (head_macs(found, config), head_params(found, config)) == (counted.head_macs, counted.head_params)


def test_counting_leaves_the_model_with_its_data():
    segmenter = build("test_vit", 64)
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    segmenter_cost(segmenter)
    assert all(torch.equal(value, before[key]) for key, value in segmenter.state_dict().items())
    twin = meta_twin(segmenter)
    assert all(tensor.is_meta for tensor in twin.state_dict().values())
    assert num_parameters(twin) == num_parameters(segmenter)


def test_vit_b_at_512_by_hand():
    found = cost(BackboneSpec("vit_b", "vit_base_patch16_224", "vit_base_patch16_224"), 512, sources=sources(facts()))
    k, n, d, c = 100, 1024, 768, 150
    attention = 2 * k * d * d + 2 * n * d * d + 2 * k * n * d
    upscale = sum(n * 4**i * (4 * d * d + 36 * d) for i in range(2))
    by_hand = attention + 8 * k * d * d + k * d * (c + 1) + 3 * k * d * d + upscale + k * d * 128 * 128
    assert found.head_macs == by_hand == 15_623_058_432
    assert found.head_params == 9_067_159
    assert found.macs == found.backbone_macs + by_hand
    assert found.gflops("2x") == 2 * found.gflops() == pytest.approx(2 * found.gmacs)


# where facts come from


def sources(*rows, cache=None, counter=never) -> CostSources:
    table = {(row.architecture, row.resolution): row for row in rows}
    return CostSources(table=table, counter=counter, **({"cache": cache} if cache else {}))


def test_the_table_answers_when_it_was_made_with_this_timm(tmp_path):
    assert cost("vit_base_patch16_224", 512, sources=sources(facts())).source == "table"
    stale = sources(facts(timm="0.0.1"), cache=tmp_path, counter=lambda requests, imports: [facts(macs=7)])
    found = cost("vit_base_patch16_224", 512, sources=stale)
    assert (found.source, found.backbone_macs) == ("counted", 7)


def test_the_table_does_not_answer_for_a_changed_model(tmp_path):
    """A folder with other constructor arguments, and a rule of one's own, share only the architecture's name."""
    config = {"architecture": "vit_base_patch16_224", "model_args": {"depth": 2}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ruled = replace(resolve("vit_base_patch16_224"), rule={"arguments": {"depth": 2}})
    shipped = sources(facts(), cache=tmp_path / "cache", counter=lambda requests, imports: [facts(macs=7)])
    for changed in (f"local-dir:{tmp_path}", ruled):
        found = cost(changed, 512, sources=shipped)
        assert (found.source, found.backbone_macs) == ("counted", 7)
    assert cost(resolve("vit_base_patch16_224"), 512, sources=shipped).source == "table"


def test_what_was_counted_is_kept(tmp_path):
    first = sources(
        cache=tmp_path, counter=lambda requests, imports: [facts(resolution=r.resolution) for r in requests]
    )
    assert cost("vit_base_patch16_224", 528, sources=first).source == "counted"
    again = cost("vit_base_patch16_224", 528, HeadConfig(num_queries=7), sources=sources(cache=tmp_path))
    assert (again.source, again.resolution) == ("cache", 528)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"macs": 1}', "\x00\xff"])
def test_a_broken_cache_file_is_counted_again(tmp_path, content):
    answers = sources(cache=tmp_path, counter=lambda requests, imports: [facts()])
    cost("vit_base_patch16_224", 512, sources=answers)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(content.encode("latin-1"))
    assert cost("vit_base_patch16_224", 512, sources=answers).source == "counted"
    assert cost("vit_base_patch16_224", 512, sources=sources(cache=tmp_path)).source == "cache"


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = cost("vit_base_patch16_224", 512, sources=sources(cache=blocked, counter=lambda *_: [facts()]))
    assert found.source == "counted"


def test_one_refusal_does_not_hide_the_others(tmp_path):
    def counter(requests, imports):
        return [
            Refusal("BadResolution", "no") if r.resolution == 13 else facts(resolution=r.resolution) for r in requests
        ]

    bad, good = costs([("vit_b", 13), ("vit_b", 512)], sources=sources(cache=tmp_path, counter=counter))
    assert isinstance(bad, Refusal)
    assert good.resolution == 512
    with pytest.raises(BadResolution, match="no"):
        cost("vit_b", 13, sources=sources(cache=tmp_path, counter=counter))


def test_a_head_that_cannot_be_built_is_an_error_without_counting():
    fresh = facts(ffn="fresh", query_ffn_macs=0)
    with pytest.raises(BuildError, match="no token-wise FFN to reuse; use ffn='fresh'"):
        cost("vit_base_patch16_224", 512, HeadConfig(ffn="reused"), sources=sources(fresh))


def test_wrong_names_and_things_are_refused():
    with pytest.raises(UnknownName):
        cost("vit_basee", 512, sources=sources())
    with pytest.raises(UsageError, match="segmenter_cost"):
        cost(torch.nn.Identity(), 512, sources=sources())


def test_incomplete_counts_say_so():
    found = cost("vit_b", 512, sources=sources(facts(complete=False, unknown_ops="my.scan my.other")))
    assert (found.complete, found.unknown_ops) == (False, ("my.scan", "my.other"))
    assert found.as_facts()["flops_complete"] is False
    json.dumps(found.as_facts(), allow_nan=False)


# the counting process


def test_counted_in_a_process_of_its_own_with_ones_own_module(tmp_path):
    own = tmp_path / "own_net.py"
    own.write_text(
        "from timm.models import register_model\n"
        "from timm.models.vision_transformer import VisionTransformer, build_model_with_cfg\n"
        "print('noise on stdout')\n"
        "@register_model\n"
        "def own_vit(pretrained=False, **options):\n"
        "    options = {'depth': 2, 'embed_dim': 64, 'num_heads': 2, **options}\n"
        "    return build_model_with_cfg(VisionTransformer, 'own_vit', pretrained, **options)\n"
    )
    found = costs([("own_vit", 224), ("own_vit", 100_000)], imports=[str(own)], sources=CostSources(cache=tmp_path))
    tokens, width = 197, 64
    expected = 196 * 768 * width + 2 * (12 * tokens * width**2 + 2 * tokens**2 * width)
    assert found[0].backbone_macs == expected
    assert found[0].source == "counted"
    assert (found[1].kind, "100000" in found[1].message) == ("BadResolution", True)


def test_an_import_that_fails_is_reported_as_the_users(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('my own mistake')\n")
    with pytest.raises(UsageError, match="my own mistake"):
        cost("own_vit", 64, imports=[str(broken)], sources=CostSources(cache=tmp_path))


def test_a_counting_process_that_dies_is_one_line(tmp_path):
    dying = tmp_path / "dying.py"
    dying.write_text("import os, sys\nprint('last words', file=sys.stderr, flush=True)\nos._exit(9)\n")
    with pytest.raises(MeasureError, match="ended with code 9: last words"):
        cost("own_vit", 64, imports=[str(dying)], sources=CostSources(cache=tmp_path))


def test_a_counting_process_that_hangs_is_stopped(tmp_path, monkeypatch):
    hanging = tmp_path / "hanging.py"
    hanging.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(cost_module, "_COUNT_SECONDS", 0.5)
    with pytest.raises(MeasureError, match="took over"):
        cost("own_vit", 64, imports=[str(hanging)], sources=CostSources(cache=tmp_path))


def test_importing_cost_loads_neither_torch_nor_timm():
    heavy = "{'torch', 'timm', 'numpy', 'pandas'} & set(sys.modules)"
    code = f"import sys, luma_cli.measure.cost; sys.exit(repr({heavy}) if {heavy} else 0)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@given(st.sampled_from([facts(), facts(complete=False, unknown_ops="a.b"), Refusal("BuildError", 'a "quoted"\nline')]))
def test_answers_survive_the_pipe(answer):
    line = runner.dump(answer)
    assert runner.load(line, (BackboneFacts, Refusal)) == answer
    assert line.count(b"\n") == 1


def test_requests_survive_the_pipe():
    spec = BackboneSpec("a", "a.b", "a", "b", rule={"tap": "blocks.-1"})
    for job in (CountJob(spec, 64), CountJob(spec, 64, HeadConfig(num_queries=7))):
        assert runner.load(runner.dump(job), (CountJob,)) == job


def test_a_foreign_error_becomes_a_measure_error():
    assert isinstance(Refusal("OSError", "x").error(), MeasureError)
    assert isinstance(Refusal("BuildError", "x").error(), BuildError)


# the shipped table


def test_the_shipped_table_is_current():
    """A few rows counted again, where the installed timm is the one that the table was made with.

    Of every eighth of the alphabet the smallest model: the largest take seconds each to build, even without data.
    """
    table = load_costs()
    assert table, "profiles/costs.csv is missing; run python -m luma_cli.measure.cost_table"
    if next(iter(table.values())).timm != version("timm"):
        pytest.skip("another timm is installed than the table was made with")
    names = sorted(table)
    parts = [names[part * len(names) // 8 : (part + 1) * len(names) // 8] for part in range(8)]
    for architecture, resolution in (min(part, key=lambda name: table[name].params) for part in parts):
        backbone = build(architecture, resolution, head="none", device="meta").backbone
        assert backbone_facts(backbone) == table[architecture, resolution]


def test_the_table_is_written_the_same_whatever_the_order(tmp_path):
    from luma_cli import files
    from luma_cli.catalogue.costs import read_costs
    from luma_cli.measure.cost_table import table_text

    rows = [facts(), facts("a_net", 224, final_norm=False), facts("a_net", 1024, ffn="fresh")]
    assert table_text(rows) == table_text(reversed(rows))
    files.write_text(tmp_path / "costs.csv", table_text(rows))
    assert list(read_costs(tmp_path / "costs.csv").values()) == [rows[1], rows[2], rows[0]]
    assert [path.name for path in tmp_path.iterdir()] == ["costs.csv"]


def test_the_head_is_named_in_the_cost():
    found = cost("vit_b", 512, replace(HeadConfig(), name="none"), sources=sources(facts()))
    assert (found.ffn, found.head_macs, found.head_params) == ("none", 0, 0)
