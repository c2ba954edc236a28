"""How much house there is: files, lines, layers and names of luma_cli, and how many of its files a command runs.

Usage: python benchmarks/house.py [--at REVISION ...] [--names] [--no-commands]
With `--at` the table has a column for each revision before that of the working tree. Imports neither torch nor luma:
the text is read, and commands run in processes of their own. Comments are those on lines of their own, a function's
length is from its `def` to its last line, and layers are the longest chain of folders (and files beside them) by all
imports, wherever they stand; those that import each other in a circle all count. Of the files that a command runs,
those below `cli` are told too: `cli` itself loads a small file for every other command.
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAIN = (
    "train test_vit --data ade20k --root {data} --res 64 --weights random --recipe smoke --batch 2 --workers 0 "
    "--set steps=2 --set epochs=0 --set warmup_head_steps=1 --set warmup_backbone_steps=1 --set num_points=64 "
    "--device cpu --out {data}/run"
)
COMMANDS = {
    "luma --help": "--help",
    "luma list": "list",
    "luma recommend": "recommend --budget 200gflops",
    "luma cost": "cost vit_b --res 512",
    "luma train, to a kept step": TRAIN,
}
# Counts modules of luma whose file holds code, besides a docstring and `from __future__`. A training counts when the
# first step's numbers are kept, which is when SQLite first sees one of them.
COUNT = """
import ast, os, sys
def told():
    found, below = 0, 0
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "luma_cli" or not getattr(module, "__file__", None):
            continue
        body = ast.parse(open(module.__file__, encoding="utf-8").read()).body
        is_docstring = lambda node: isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_future = lambda node: isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if any(not is_docstring(node) and not is_future(node) for node in body):
            found += 1
            below += not name.startswith("luma_cli.cli")
    with open(sys.argv[1], "w") as file:
        file.write(f"{found} ({below})")
    os._exit(0)
if "train" in sys.argv[2:3]:
    import sqlite3
    connect = sqlite3.connect
    def traced(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda text: "run_metric" in text and "INSERT" in text.upper()[:40] and told())
        return connection
    sqlite3.connect = traced
from luma_cli.cli.app import run
run(sys.argv[2:])
told()
"""


@dataclass(frozen=True)
class House:
    """The source text of one revision."""

    root: Path

    @cached_property
    def texts(self) -> dict[str, str]:
        """Source by module name; a package has the name of its folder."""
        paths = sorted((self.root / "luma_cli").rglob("*.py"))
        return {self._name(path): path.read_text(encoding="utf-8") for path in paths}

    def _name(self, path: Path) -> str:
        return ".".join(path.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__")

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """Parsed source by module name."""
        return {name: ast.parse(text) for name, text in self.texts.items()}

    def imports(self, name: str) -> set[str]:
        """Modules of luma that a module imports, at its top or later."""
        found = set()
        for node in ast.walk(self.trees[name]):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & self.texts.keys()
                # Of a package's own names, the package is meant; of its files, these.
                found |= inner if len(inner) == len(node.names) else inner | {node.module}
        return (found & self.texts.keys()) - {name}

    def classes(self) -> dict[str, list[str]]:
        """Files by the class names at the top of two or more of them."""
        found = defaultdict(list)
        for name, tree in self.trees.items():
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(name.removeprefix("luma_cli."))
        return {name: where for name, where in sorted(found.items()) if len(where) > 1}

    def importers(self) -> dict[str, set[str]]:
        """Which modules import each."""
        found: dict[str, set[str]] = {name: set() for name in self.texts}
        for name in self.texts:
            for target in self.imports(name):
                found[target].add(name)
        return found

    def layers(self) -> int:
        """Number of folders (files at the root are one each) in the longest chain of imports."""
        graph: dict[str, set[str]] = defaultdict(set)
        for name in self.texts:
            graph[_folder(name)] |= {_folder(target) for target in self.imports(name)} - {_folder(name)}
        return _longest_chain(graph)

    def functions(self) -> list[int]:
        """Lines of each function and method."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return sorted(
            (node.end_lineno or node.lineno) - node.lineno + 1
            for tree in self.trees.values()
            for node in ast.walk(tree)
            if isinstance(node, kinds)
        )

    def comments(self) -> int:
        """Comments on lines of their own."""
        return sum(
            token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
            for text in self.texts.values()
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
        )


def _folder(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _longest_chain(graph: Mapping[str, set[str]]) -> int:
    """Nodes on the longest path of a graph whose circles are drawn together to one node that counts all its members."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        ahead = [start]
        while ahead:
            fresh = graph[ahead.pop()] - found
            found |= fresh
            ahead += fresh
        return found

    reach = {node: reached(node) for node in graph}
    circle = {node: frozenset({node, *(other for other in reach[node] if node in reach[other])}) for node in graph}

    @cache
    def depth(members: frozenset[str]) -> int:
        below = {circle[target] for node in members for target in graph[node]} - {members}
        return len(members) + max(map(depth, below), default=0)

    return max(map(depth, circle.values()), default=0)


def files_run(house: House, arguments: str) -> str:
    """How many of luma's files that hold code one command loads, in a process with an empty home."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            **{name: home for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")},
            **{"LUMA_DB": f"{home}/luma.db", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            "PYTHONPATH": str(house.root),
        }

        def python(*words: str) -> None:
            command = [sys.executable, "-P", *words]
            subprocess.run(command, env=environment, cwd=home, capture_output=True, timeout=600)

        if "{data}" in arguments:
            python("-m", "luma_cli", "data", "sample", "ade20k", "data", "--n", "10")
            arguments = arguments.format(data="data")
        python("-c", COUNT, f"{home}/count", *arguments.split())
        count = Path(home, "count")
        return count.read_text() if count.exists() else "failed"


def measured(house: House, commands: bool) -> dict[str, str]:
    """The table's cells by what they say."""
    lengths = {name: text.count("\n") for name, text in house.texts.items()}
    functions = house.functions()
    num_lines = sum(lengths.values())
    importers = house.importers()
    table = {
        "files": f"{len(house.texts)}",
        "lines": f"{num_lines:,}",
        "layers of folders": f"{house.layers()}",
        "files under 40 lines": f"{sum(lines < 40 for lines in lengths.values())}",
        "files over 700 lines": f"{sum(lines > 700 for lines in lengths.values())}",
        "files that one other file alone imports": f"{sum(len(each) == 1 for each in importers.values())}",
        "imports of one file by another": f"{sum(map(len, importers.values())):,}",
        "class names in two or more files": f"{len(house.classes())}",
        "comments per 100 lines": f"{100 * house.comments() / num_lines:.2f}",
        "functions": f"{len(functions):,}",
        "lines of a function: median": f"{statistics.median(functions):.0f}",
        "lines of a function: 90%": f"{functions[int(0.9 * len(functions))]}",
        "lines of a function: most": f"{functions[-1]}",
    }
    if commands:
        table |= {f"files run (below cli): {name}": files_run(house, arguments) for name, arguments in COMMANDS.items()}
    return table


def taken_out(revision: str, folder: Path) -> House:
    """The files of a git revision, written to `folder`."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return House(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", action="append", default=[], metavar="REVISION", help="measure this one too, before")
    parser.add_argument("--names", action="store_true", help="also list class names of two or more files")
    parser.add_argument("--no-commands", action="store_true", help="run no command: a second instead of a minute")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        houses = {name: taken_out(name, Path(folder, str(at))) for at, name in enumerate(options.at)}
        houses["now"] = House(ROOT)
        columns = {name: measured(house, not options.no_commands) for name, house in houses.items()}
        width = max(len(row) for row in columns["now"])
        print(" " * width, *(f"{name[:12]:>12}" for name in columns))
        for row in columns["now"]:
            print(f"{row:{width}}", *(f"{cells[row]:>12}" for cells in columns.values()))
        if options.names:
            for name, where in houses["now"].classes().items():
                print(f"{name}: {', '.join(where)}")


if __name__ == "__main__":
    main()
