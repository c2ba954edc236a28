"""The user's own backbones: `--import module|file.py` names code that registers models with timm when it runs.

The code runs only in the processes that build models. Everywhere else it is a name and a hash, so that a stored row
says which code it measured.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from luma_cli.errors import LumaError, UsageError

_EXPECTED = "expected a file ending in .py or the name of an importable module"


@dataclass(frozen=True, slots=True)
class OwnCode:
    """What `--import` was given: the text, the files that it stands for, and their SHA-256 in hex."""

    target: str
    files: tuple[Path, ...]
    sha256: str


def own_code(target: str) -> OwnCode:
    """The code that `target` names, located and hashed without running it. Raises UsageError when there is none.

    A package counts with every .py file below it. A dotted module name runs the packages above it, as Python does.
    """
    origin = _file(target) if _is_path(target) else _module_origin(target)
    files = tuple(sorted(origin.parent.rglob("*.py"))) if origin.name == "__init__.py" else (origin,)
    return OwnCode(target, files, _sha256(origin.parent, files))


def run(target: str) -> ModuleType:
    """Import what `target` names, so that it registers its models. Raises UsageError, LumaError when the code fails.

    A file's folder is searched last for the modules beside it, so it hides nobody else's.
    """
    try:
        return _run_file(_file(target)) if _is_path(target) else importlib.import_module(target)
    except LumaError:
        raise
    except Exception as error:
        raise LumaError(f"--import {target}: running it failed with {type(error).__name__}: {error}") from error


def _is_path(target: str) -> bool:
    return target.endswith(".py") or "/" in target or "\\" in target


def _file(target: str) -> Path:
    path = Path(target).expanduser().resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"--import {target}: no such file; {_EXPECTED}")
    return path


def _module_origin(target: str) -> Path:
    try:
        found = importlib.util.find_spec(target)
    except (ImportError, ValueError) as error:
        raise UsageError(f"--import {target}: {error}; {_EXPECTED}") from error
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise UsageError(f"--import {target}: no such module; {_EXPECTED}")
    return Path(found.origin)


def _run_file(path: Path) -> ModuleType:
    name = f"luma_import_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise UsageError(f"--import {path}: it cannot be imported; {_EXPECTED}")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _sha256(root: Path, files: tuple[Path, ...]) -> str:
    """Of one file, its bytes; of a package, names and bytes of all its files."""
    if len(files) == 1:
        return hashlib.sha256(files[0].read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for part in _parts(root, files):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(root: Path, files: tuple[Path, ...]) -> Iterator[bytes]:
    for path in files:
        yield path.relative_to(root).as_posix().encode()
        yield path.read_bytes()
