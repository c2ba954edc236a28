"""Names and cards never load torch, timm or pandas, and stay far from costing as much as timm."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "timm", "pandas", "scipy", "numpy", "sqlite_utils"}


@pytest.mark.parametrize(
    "program",
    [
        "from luma_cli.catalogue.names import resolve; resolve('vit_b.dinov3'); resolve('regnety_320')",
        "from luma_cli.catalogue.names import expand; expand(['*'])",
        "from luma_cli.catalogue.names import complete; complete('vit_')",
        "from luma_cli.catalogue.listing import list_backbones, show; list_backbones(); show('convnext_b')",
        "from luma_cli.catalogue.costs import load_costs; load_costs()",
    ],
)
def test_the_catalogue_loads_nothing_heavy(program: str) -> None:
    checked = f"{program}\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=True, timeout=60)
    assert not HEAVY & set(done.stdout.split())


def test_a_card_name_parses_no_rule_table() -> None:
    program = "from luma_cli.catalogue.names import resolve; resolve('vit_b.dinov3'); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert not loaded & {"luma_cli.catalogue.rules", "importlib.metadata", "subprocess", "json"}
