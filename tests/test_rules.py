"""The rule table parses, covers timm, names classes that exist, and needs no torch."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.catalogue import own
from luma_cli.catalogue.rules import MAX_RESOLUTION, ModelRule, load_rules, multiple_of, patch_size, valid_near
from luma_cli.errors import BadCard


def timm_class(name: str) -> type:
    module, _, cls = name.rpartition(".")
    own_packages = ("luma_cli.isotropic", "luma_cli.isotropic.mixtures")
    for package in ("timm.models", "timm.layers", "torch.nn.modules", *own_packages):
        try:
            return getattr(importlib.import_module(f"{package}.{module}"), cls)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise LookupError(name)


def test_every_module_of_timm_has_a_rule() -> None:
    assert set(load_rules().modules) - {own.MODULE} == set(timm.list_modules()) - {own.MODULE}


def test_every_class_and_filter_that_the_table_names_exists() -> None:
    rules = load_rules()
    for name in (*rules.models, *rules.blocks, *rules.fresh):
        assert inspect.isclass(timm_class(name)), name
    for module in rules.modules:
        rule = rules.build_rule(module, "", {})
        if rule.filter:
            home, _, name = rule.filter.rpartition(":")
            assert callable(getattr(importlib.import_module(home or f"timm.models.{module}"), name)), module


def test_a_card_overrides_only_what_it_names() -> None:
    rules = load_rules()
    plain = rules.model_rule("vision_transformer", "vision_transformer.VisionTransformer", "x", {})
    changed = rules.model_rule("vision_transformer", "vision_transformer.VisionTransformer", "x", {"norm": ""})
    assert (changed.norm, changed.tap, changed.size) == ("", plain.tap, plain.size)
    assert rules.model_rule("", "mine.Net", "x", {}).reason == "model class mine.Net has no rule"
    assert rules.ffn_rule("mine.Block") == "block class mine.Block has no rule"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[modules]]\nname = "a"', "has no `names`"),
        ('[[modules]]\nnames = ["a"]\nmultipel = 3', "did you mean 'multiple'"),
        ('[[modules]]\nnames = ["a"]\n[[modules]]\nnames = ["a"]', "named twice"),
        ('[[blocks]]\nnames = ["a.B"]\nkind = "x"', "needs `kind` and `branch`"),
        ("[[blokcs]]\n", "unknown table 'blokcs'"),
        ("[[modules\n", "line 1"),
    ],
)
def test_a_broken_table_is_refused_by_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(BadCard, match=message):
        load_rules(path)


@pytest.mark.parametrize(
    ("architecture", "size"),
    [("vit_base_patch16_224", 16), ("xcit_nano_12_p8_224", 8), ("eva02_tiny_patch14_336", 14), ("resnet50", 0)],
)
def test_patch_sizes_are_read_from_names(architecture: str, size: int) -> None:
    assert patch_size(architecture) == size


def test_patch_14_is_built_as_16() -> None:
    rule = ModelRule(multiple=0, patch14=True)
    assert multiple_of(rule, "vit_small_patch14_dinov2") == 16
    assert multiple_of(rule, "vit_small_patch8_224") == 8


@given(st.integers(-100, 100_000), st.integers(1, 300), st.integers(0, 600))
def test_the_nearest_sizes_are_valid_and_nearest(resolution: int, multiple: int, minimum: int) -> None:
    near = valid_near(resolution, multiple, minimum)
    valid = range(-(-max(minimum, 1) // multiple) * multiple, MAX_RESOLUTION + 1, multiple)
    assert all(size in valid for size in near)
    best = min(abs(size - resolution) for size in valid)
    assert min(abs(size - resolution) for size in near) == best


def test_rules_are_read_without_torch() -> None:
    code = "import sys; from luma_cli.catalogue.rules import load_rules; load_rules(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
