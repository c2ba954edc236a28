"""The index of installed timm: every architecture with its module, model class, tags and licences.

It ships as `models/timm_index.csv`, written by `python -m luma_cli.catalogue.timm_index`. For another timm the index is
generated once, in a process of its own, and kept in the cache folder. Reading it never imports timm.
"""

from __future__ import annotations

import csv
import io
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from luma_cli import files
from luma_cli.catalogue import own
from luma_cli.catalogue.spec import IndexEntry
from luma_cli.errors import BadCard

COLUMNS = ("architecture", "module", "class", "input_size", "default_tag", "tags", "replaced_by")
_VERSION_PREFIX = "# timm "
_REFRESH_SECONDS = 300
# A failure to generate may be repaired (a torchvision that matches torch), so it is tried again after a day.
_FAILURE_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class TimmIndex:
    """What installed timm offers. `replaced`: deprecated name -> its successor. `stale`: why it is not of that timm."""

    version: str
    entries: Mapping[str, IndexEntry]
    replaced: Mapping[str, str] = field(default_factory=dict)
    stale: str = ""

    def get(self, architecture: str) -> IndexEntry | None:
        """The entry of `architecture`, None when timm has none."""
        return self.entries.get(architecture)

    def has(self, timm_name: str) -> bool:
        """Whether timm has this architecture and, when `timm_name` carries one, this tag with weights."""
        architecture, _, tag = timm_name.partition(".")
        entry = self.entries.get(architecture)
        return entry is not None and (not tag or tag in entry.tags)


def shipped_path() -> Path:
    """The index that ships with luma."""
    return files.root() / "models" / "timm_index.csv"


def version_line(version: str) -> str:
    """First line of an index made with this timm."""
    return f"{_VERSION_PREFIX}{version}\n"


def installed_version() -> str:
    """Version of installed timm without importing it, empty when there is none."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.startswith("timm-") and name.endswith(".dist-info"):
                return name[5:-10]
    from importlib import metadata  # 25 ms; for zip files and import hooks

    try:
        return metadata.version("timm")
    except metadata.PackageNotFoundError:
        return ""


def read_index(path: Path, stale: str = "") -> TimmIndex:
    """The index kept in the file at `path`. Raises BadCard when it is not one."""
    entries: dict[str, IndexEntry] = {}
    replaced: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        version = file.readline().removeprefix(_VERSION_PREFIX).strip()
        table = csv.reader(file)
        if tuple(next(table, ())) != COLUMNS:
            raise BadCard(f"{path} is no index of timm; delete it or run python -m luma_cli.catalogue.timm_index")
        for name, module, cls, size, default_tag, tags, successor in table:
            if module:
                licences = dict(pair.split("=", 1) for pair in tags.split())
                entries[name] = IndexEntry(name, module, cls, licences, default_tag, int(size or 0))
            else:
                replaced[name] = successor
    return TimmIndex(version, entries, replaced, stale)


@cache
def load_index() -> TimmIndex:
    """The index of installed timm (the shipped one, else one generated once and cached) and luma's own architectures.

    When generating fails (a timm that cannot be imported), the shipped index is taken and `stale` says why.
    """
    index = index_for(installed_version(), shipped_path())
    return replace(index, entries={**index.entries, **own.entries()})


def is_current() -> bool:
    """Whether `load_index` only reads; otherwise it spends some 10 s on generating, which a command may announce."""
    version = installed_version()
    return not version or version in (_version_of(shipped_path()), _version_of(cache_path(version)))


def index_for(
    version: str, shipped: Path, generate: Callable[[Path], str] | None = None, now_seconds: float | None = None
) -> TimmIndex:
    """The index for timm `version`.

    generate: writes a new one at the path given and returns what went wrong, or nothing. now_seconds: the time since
    the epoch at which an earlier failure is judged, by default that of the clock.
    """
    if not version or _version_of(shipped) == version:
        return read_index(shipped)
    cached = cache_path(version)
    if _version_of(cached) == version:
        return read_index(cached)
    failed = cached.with_suffix(".failed")
    now_seconds = time.time() if now_seconds is None else now_seconds
    is_recent = failed.is_file() and now_seconds - failed.stat().st_mtime <= _FAILURE_SECONDS
    trouble = failed.read_text(encoding="utf-8") if is_recent else ""
    if not trouble:
        trouble = (generate or _generate)(cached)
        if not trouble and _version_of(cached) == version:
            return read_index(cached)
        trouble = trouble or f"the new index is not of timm {version}"
        with suppress(OSError):  # a cache folder that cannot be written costs another try, not the command
            files.write_text(failed, trouble)
    return read_index(shipped, stale=f"timm {version} is installed, the index is of {_version_of(shipped)}: {trouble}")


def cache_path(version: str) -> Path:
    """Where an index generated for timm `version` is kept."""
    return files.user_folder("cache") / f"timm_index-{version}.csv"


def _generate(path: Path) -> str:
    """Writes an index at `path` in a process of its own; returns the last line of what went wrong, or nothing."""
    import subprocess

    # -P: files in the user's folder must not hide the standard library's or timm's.
    command = [sys.executable, "-P", "-m", "luma_cli.catalogue.timm_index", str(path)]
    places = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": places, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_REFRESH_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return f"generating it took more than {_REFRESH_SECONDS} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def _version_of(path: Path) -> str:
    """Version of timm that the index at `path` was made with, empty when there is no such file."""
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8") as file:
        head, prefix, version = file.readline().partition(_VERSION_PREFIX)
    return version.strip() if prefix and not head else ""


class _InterceptedError(Exception):
    """Thrown by the stand-in builder as soon as the model class is known."""


def _stand_in(model_class: type, *_args: object, **_options: object) -> None:
    raise _InterceptedError(model_class)


def _model_class(entry_point: Callable[..., Any]) -> str:
    """The class that an entry point builds, as `module.Class` below `timm.models`: the key of the rule table."""
    import torch

    # Two entry points bypass timm's builder and are built on meta.
    try:
        with torch.device("meta"):
            found = type(entry_point(pretrained=False))
    except _InterceptedError as intercepted:
        found = intercepted.args[0]
    return f"{found.__module__.removeprefix('timm.models.')}.{found.__name__}"


def _fetchable_tags(architecture: str) -> dict[str, str]:
    """Tag -> licence of the weights that timm can fetch for `architecture`, timm's default first."""
    from timm.models import _registry, get_pretrained_cfg, is_model_pretrained

    names = filter(is_model_pretrained, _registry._model_with_tags.get(architecture, []))
    configs = (get_pretrained_cfg(name) for name in names)
    return {config.tag: config.license or "" for config in configs if config is not None and config.tag}


def _row(architecture: str) -> dict[str, str]:
    """The row of an architecture; the default tag is empty where timm has no weights for the bare name."""
    from timm.models import _registry, get_pretrained_cfg, is_model_pretrained, model_entrypoint

    config = get_pretrained_cfg(architecture)
    return {
        "architecture": architecture,
        "module": _registry._model_to_module[architecture],
        "class": _model_class(model_entrypoint(architecture)),
        "input_size": "" if config is None else str(config.input_size[-1]),
        "default_tag": "" if config is None or not is_model_pretrained(architecture) else config.tag or "",
        "tags": " ".join(f"{tag}={licence}" for tag, licence in _fetchable_tags(architecture).items()),
        "replaced_by": "",
    }


def _rows() -> list[dict[str, str]]:
    """One row per architecture and deprecated name, sorted. Replaces timm's builder in this process for good."""
    import timm.models
    from timm.models import _registry

    for module in (sys.modules[f"timm.models.{name}"] for name in timm.models.list_modules()):
        if "build_model_with_cfg" in vars(module):
            module.build_model_with_cfg = _stand_in  # type: ignore[attr-defined]
    found = [_row(architecture) for architecture in timm.models.list_models()]
    for old, new in _registry._deprecated_models.items():
        architecture, _, tag = (new or "").partition(".")
        # Some successors do not exist: timm 1.0.31 lacks `vit_base_patch16_224.sam`.
        if new and (not tag or tag in _fetchable_tags(architecture)):
            found.append(dict.fromkeys(COLUMNS, "") | {"architecture": old, "replaced_by": new})
    return sorted(found, key=lambda row: row["architecture"])


def main(arguments: list[str]) -> None:
    """Write the index of installed timm to the file named in `arguments`, else to the shipped one. Stays offline."""
    import timm

    text = io.StringIO()
    text.write(version_line(timm.__version__))
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows())
    files.write_text(Path(arguments[0]) if arguments else shipped_path(), text.getvalue())


if __name__ == "__main__":
    main(sys.argv[1:])
