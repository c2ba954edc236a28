"""Writes the index of installed timm: `python -m luma_cli.catalogue.refresh [FILE]`.

The one file of the catalogue that imports timm, so everybody else runs it in a process of its own. Without FILE it
rewrites the shipped `models/timm_index.csv`. It reads timm's registry and never the network.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luma_cli import files
from luma_cli.catalogue.index import COLUMNS, shipped_path, version_line


class _Intercepted(Exception):
    """Thrown by the stand-in builder as soon as the model class is known."""

    def __init__(self, model_class: type) -> None:
        super().__init__()
        self.model_class = model_class


def _stand_in(model_class: type, *_args: object, **_options: object) -> None:
    raise _Intercepted(model_class)


@contextmanager
def _builders_intercepted(modules: list[Any]) -> Iterator[None]:
    """The model modules with a builder that names the class instead of building it."""
    replaced: list[tuple[Any, Callable[..., Any]]] = []
    try:
        for module in modules:
            builder = vars(module).get("build_model_with_cfg")
            if builder is not None:
                replaced.append((module, builder))
                module.build_model_with_cfg = _stand_in
        yield
    finally:
        for module, builder in replaced:
            module.build_model_with_cfg = builder


def _model_class(entry_point: Callable[..., Any]) -> str:
    """Name of the class that an entry point builds; the two that bypass timm's builder are built on meta."""
    import torch

    try:
        with torch.device("meta"):
            return _spelling(type(entry_point(pretrained=False)))
    except _Intercepted as intercepted:
        return _spelling(intercepted.model_class)


def _spelling(model_class: type) -> str:
    """The class as the rule table names it: `module.Class` below `timm.models`."""
    return f"{model_class.__module__.removeprefix('timm.models.')}.{model_class.__name__}"


def _tags(architecture: str) -> dict[str, str]:
    """Tag -> licence of the weights that timm can fetch for `architecture`, timm's default first."""
    from timm.models import get_pretrained_cfg, is_model_pretrained

    tags: dict[str, str] = {}
    for name in _tagged_names(architecture):
        config = get_pretrained_cfg(name)
        if config is not None and config.tag and is_model_pretrained(name):
            tags[config.tag] = config.license or ""
    return tags


def _tagged_names(architecture: str) -> list[str]:
    from timm.models import _registry

    return list(_registry._model_with_tags.get(architecture, []))


def _has(name: str) -> bool:
    """Whether timm has what its own table of deprecated names points at; 1.0.31 lacks `vit_base_patch16_224.sam`."""
    architecture, _, tag = name.partition(".")
    return not tag or tag in _tags(architecture)


def _default_tag(architecture: str) -> str:
    """The tag that timm takes for the bare architecture; empty when that one has no weights."""
    from timm.models import get_pretrained_cfg, is_model_pretrained

    config = get_pretrained_cfg(architecture)
    return (config.tag or "") if config is not None and is_model_pretrained(architecture) else ""


def _input_size(architecture: str) -> str:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(architecture)
    return str(config.input_size[-1]) if config is not None else ""


def rows() -> list[dict[str, str]]:
    """One row per architecture and deprecated name of installed timm, sorted by name."""
    import timm.models
    from timm.models import _registry

    modules = [sys.modules[f"timm.models.{name}"] for name in timm.models.list_modules()]
    found = []
    with _builders_intercepted(modules):
        for architecture in timm.models.list_models():
            found.append(
                {
                    "architecture": architecture,
                    "module": _registry._model_to_module[architecture],
                    "class": _model_class(timm.models.model_entrypoint(architecture)),
                    "input_size": _input_size(architecture),
                    "default_tag": _default_tag(architecture),
                    "tags": " ".join(f"{tag}={licence}" for tag, licence in _tags(architecture).items()),
                    "replaced_by": "",
                }
            )
    for old, new in _registry._deprecated_models.items():
        if new and _has(new):
            found.append(dict.fromkeys(COLUMNS, "") | {"architecture": old, "replaced_by": new})
    return sorted(found, key=lambda row: row["architecture"])


def render(table: list[dict[str, str]], version: str) -> str:
    """The index as CSV text: timm's version on the first line, then a header, then the rows."""
    text = io.StringIO()
    text.write(version_line(version))
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def main(arguments: list[str]) -> None:
    """Write the index of installed timm to the file named in `arguments`, else to the shipped one."""
    import timm

    path = Path(arguments[0]) if arguments else shipped_path()
    files.write_text(path, render(rows(), timm.__version__))


if __name__ == "__main__":
    main(sys.argv[1:])
