"""Imports point one way, without cycles, and only the measuring half of luma imports torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "luma_cli"
# A layer may import the ones after it.
LAYERS = (
    "cli",
    "report",
    "findings",
    "advise",
    "scaling",
    "accuracy",
    "speed",
    "evidence",
    "train",
    "export",
    "evaluate",
    "measure",
    "head",
    "backbone",
    "isotropic",
    "data",
    "store",
    "catalogue",
    "content",
    "units",
    "errors",
)
TORCH = {"head", "backbone", "isotropic", "measure", "data", "train", "evaluate", "export"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Names that a file imports, and whether at its top level and at run time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) in top
            yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)


def files() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def layer(name: str) -> str:
    return name.split(".")[1] if name.count(".") else ""


def test_layers_point_one_way() -> None:
    wrong = []
    for name, path in files().items():
        if layer(name) not in LAYERS:
            continue
        for target, _ in imports(path):
            if not target.startswith("luma_cli."):
                continue
            if layer(target) in LAYERS and LAYERS.index(layer(target)) < LAYERS.index(layer(name)):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_no_cycles() -> None:
    known = files()
    graph = {name: {t for t, top in imports(path) if top and t in known and t != name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_only_the_measuring_half_imports_torch() -> None:
    heavy = {"torch", "timm", "torchvision", "pandas"}
    offenders = {
        name
        for name, path in files().items()
        for target, _ in imports(path)
        if target.split(".")[0] in heavy and layer(name) not in TORCH and name != "luma_cli.catalogue.timm_index"
    }
    assert offenders == set()


def test_numbers_are_crunched_only_where_they_are_needed() -> None:
    """What every command imports stays light: numpy costs 0.07 s, scipy and matplotlib far more."""
    late = {"scipy", "matplotlib"}  # imported inside the functions that fit or draw
    light = ("cli", "report", "evidence", "store", "catalogue")
    offenders = {
        f"{name} imports {target}"
        for name, path in files().items()
        for target, top in imports(path)
        if top
        and layer(name) not in TORCH
        and (target.split(".")[0] in late or (target.split(".")[0] == "numpy" and layer(name) in light))
    }
    assert offenders == set()
