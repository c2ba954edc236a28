"""Two wings that never import each other, on plain ground; imports go one way, without circles; torch in one wing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "luma_cli"
ADVISING = ("findings", "advise", "scaling", "accuracy", "speed", "evidence")
DOING = ("train", "export", "evaluate", "measure", "head", "backbone", "isotropic", "data")
GROUND = ("store", "catalogue", "seeds", "to_json", "files", "units", "version", "errors")
# A layer may import the ones after it, but one wing never the other.
LAYERS = ("cli", "report", *ADVISING, *DOING, *GROUND)
MOST_LAYERS = 12


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


def wing(name: str) -> str:
    """Which wing a module is in, if any."""
    return "advising" if layer(name) in ADVISING else "doing" if layer(name) in DOING else ""


def inside() -> Iterator[tuple[str, str]]:
    """Every import of one module of luma by another, wherever it stands in the file."""
    known = files()
    for name, path in known.items():
        yield from sorted({(name, target) for target, _ in imports(path) if target in known and target != name})


def test_every_folder_has_its_place() -> None:
    assert {layer(name) for name in files()} - {"", "__main__"} == set(LAYERS)


def test_layers_point_one_way() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, target in inside()
        if layer(name) in LAYERS and layer(target) in LAYERS and LAYERS.index(layer(target)) < LAYERS.index(layer(name))
    ]
    assert wrong == []


def test_neither_wing_imports_the_other() -> None:
    """What advises runs without torch, and what trains without the statistics: each is read without the other."""
    crossing = [
        f"{name} imports {target}" for name, target in inside() if {wing(name), wing(target)} == {"advising", "doing"}
    ]
    assert crossing == []


def test_few_layers() -> None:
    """The longest chain of folders, of which each imports the next."""
    below: dict[str, set[str]] = {one: set() for one in LAYERS}
    for name, target in inside():
        if layer(name) in LAYERS and layer(target) in LAYERS and (PACKAGE / layer(target)).is_dir():
            below[layer(name)].add(layer(target))
    chains: dict[str, tuple[str, ...]] = {}
    for one in reversed(LAYERS):
        longest = max((chains[other] for other in below[one] if other in chains), key=len, default=())
        chains[one] = (one, *longest)
    longest = max(chains.values(), key=len)
    assert len(longest) <= MOST_LAYERS, " -> ".join(longest)


def test_no_cycles() -> None:
    """At the top of files, where a circle breaks the import; an import for types or inside a function may look back."""
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
        if target.split(".")[0] in heavy and layer(name) not in DOING and name != "luma_cli.catalogue.timm_index"
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
        and layer(name) not in DOING
        and (target.split(".")[0] in late or (target.split(".")[0] == "numpy" and layer(name) in light))
    }
    assert offenders == set()
