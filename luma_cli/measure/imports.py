"""Own backbones for `--import module|file.py`: found and hashed here, run only in the worker. No torch."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luma_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Import:
    """A module to import before building: as given, where it was found, and the SHA-256 of its source."""

    target: str
    path: str
    folder: str
    sha256: str


def find(target: str, cwd: Path | None = None) -> Import:
    """The module or file `target`, hashed but not run; a package is hashed with all its files.

    Searches the current folder and the path. Raises UsageError when there is none.
    """
    cwd = cwd or Path.cwd()
    if target.endswith(".py"):
        path = (cwd / target).resolve()
        if not path.is_file():
            raise UsageError(f"--import {target}: no such file; give a path to a .py file or the name of a module")
        return Import(target, str(path), str(path.parent), _hash(path.read_bytes()))
    parts = target.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UsageError(f"--import {target}: not a module name; give a path to a .py file or the name of a module")
    for folder in [str(cwd), *sys.path]:
        base = Path(folder or cwd, *parts)
        file, package = base.with_suffix(".py"), base / "__init__.py"
        if file.is_file():
            return Import(target, str(file), folder, _hash(file.read_bytes()))
        if package.is_file():
            sources = sorted(base.rglob("*.py"))
            named = [str(each.relative_to(base)).encode() + b"\0" + each.read_bytes() + b"\0" for each in sources]
            return Import(target, str(package), folder, _hash(b"".join(named)))
    raise UsageError(f"--import {target}: no such module here or on the path; try --import path/to/file.py")


def combined_hash(imports: Sequence[Import]) -> str:
    """One hash for all of them, in their order; empty for none."""
    if len(imports) < 2:
        return imports[0].sha256 if imports else ""
    return _hash("\n".join(item.sha256 for item in imports).encode())


def load(item: Import) -> None:
    """Run the module once, which registers its backbones with timm. Its own errors pass through."""
    if not item.target.endswith(".py"):
        if item.folder not in sys.path:
            sys.path.insert(0, item.folder)
        importlib.import_module(item.target)
        return
    name = Path(item.path).stem
    if getattr(sys.modules.get(name), "__file__", None) == item.path:  # registering twice would be a clash
        return
    spec = importlib.util.spec_from_file_location(name, item.path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--import {item.target}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # timm's register_model looks its caller's module up
    spec.loader.exec_module(module)


def _hash(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()
