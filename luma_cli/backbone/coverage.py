"""Two tables about the installed timm: docs/reference/coverage.md and profiles/params.csv.

`python -m luma_cli.backbone.coverage` rewrites docs/reference/coverage.md: it builds every architecture on meta, picks
the smallest of each kind and runs the self-check on it (about ten minutes on two cores).
`python -m luma_cli.backbone.coverage --params profiles/params.csv` counts the parameters of every architecture that its
name alone builds (about three minutes).
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import warnings
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import timm
import torch
from rich.console import Console
from rich.progress import track

from luma_cli import files
from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.create import create_backbone, tapped_block
from luma_cli.backbone.selfcheck import check
from luma_cli.backbone.timm_model import class_name, recipe_for
from luma_cli.catalogue import own
from luma_cli.catalogue.rules import MAX_RESOLUTION, multiple_of, valid_near
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BadResolution, LumaError

SHAPE_RESOLUTION = 512
CHECK_RESOLUTION = 256
MAX_PROVED_PARAMETERS = 600_000_000  # eva02_enormous, the one with post-norm EVA blocks, would need 35 GB
_PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "coverage.md"
_HEAD = """# Coverage of timm {version}

One row per module of timm: its smallest model, whether it attaches, the map it gives and the FFN it lends to queries.
Written by `python -m luma_cli.backbone.coverage`; the rules behind it are in `models/timm_rules.toml`.

- **map**: channels x height x width at the size asked for, {resolution} or the next that fits.
- **ffn**: `reused`, the tapped block's own FFN serves the queries; `fresh`, it lends none and the head brings one.
- **proof**: `exact`, the query path reproduces on every token the change that the block itself made, at a relative
  error of at most 1e-4 with scales redrawn; `spatial`, the FFN mixes positions (depthwise convolution, GRN,
  GroupNorm): it reproduces the block on the whole grid, and queries run it as 1 x 1 images.
- **norm**: whether the backbone's final norm on its patch map serves the head too.
- **pruned**: parameters that the segmenter never runs, removed at build.

{attached} of {total} modules attach; {reused} lend their own FFN.
"""
_SECOND = """
## Other kinds in the same modules

The smallest model of every further combination of model class, block class and verdict.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One model: how it attaches. `pruned` counts parameters; `note` says why not, or why the FFN is fresh.

    map: empty where it does not attach.
    """

    module: str
    model: str
    cls: str
    size: int
    map: str
    stride: int
    block: str
    ffn: str
    kind: str
    proof: str
    error: str
    norm: str
    pruned: int
    note: str


def row(module: str, architecture: str) -> Row:
    """The row of one architecture: built on meta near 512 pixels for shapes, on the CPU near 256 for the proof."""
    spec = BackboneSpec(architecture, architecture, architecture)
    try:
        shaped = at_nearest(spec, SHAPE_RESOLUTION, "meta")
        size = shaped.num_pruned + sum(parameter.numel() for parameter in shaped.parameters())
        shallow = {"arguments": {"depth": 2}} if size > MAX_PROVED_PARAMETERS else {}
        proved = at_nearest(replace(spec, rule=shallow), CHECK_RESOLUTION, "cpu")
    except LumaError as error:
        return Row(module, architecture, "", 0, "", 0, "", "", "", "", "", "", 0, str(error))
    verdict = check(proved)
    return Row(
        module=module,
        model=architecture,
        cls=class_name(shaped.model),
        size=shaped.resolution,
        map="x".join(str(side) for side in (shaped.width, *shaped.grid)),
        stride=shaped.stride,
        block=block_name(shaped),
        ffn="reused" if shaped.ffn_kind else "fresh",
        kind=shaped.ffn_kind,
        proof=verdict.status if shaped.ffn_kind else "",
        error=f"{verdict.error:.0e}" if shaped.ffn_kind else "",
        norm="reused" if shaped.has_final_norm else "fresh",
        pruned=shaped.num_pruned,
        note=verdict.reason or ("proved at depth 2" if shallow else ""),
    )


def block_name(backbone: Backbone) -> str:
    """Class of the tapped block, as the rule table spells it; empty where no rule names one."""
    return class_name(tapped_block(backbone.model, backbone.rule)) if backbone.rule.tap else ""


def at_nearest(spec: BackboneSpec, resolution: int, device: str) -> Backbone:
    """The backbone at the first size, in pixels, from `resolution` upwards at which it can be built.

    Raises the first failure when none of eight sizes will do.
    """
    recipe = recipe_for(spec)
    step = multiple_of(recipe.rule, recipe.architecture)
    first = valid_near(resolution, step, recipe.rule.minimum, recipe.rule.maximum)[-1]
    failure: BadResolution | None = None
    for size in range(first, min(first + 8 * step, MAX_RESOLUTION), step):
        try:
            return create_backbone(spec, size, device=device)
        except BadResolution as error:
            failure = failure or error
    raise failure or BadResolution(f"{spec.name} has no size near {resolution} pixels")


def timm_modules() -> list[str]:
    """Names of timm's own model modules, sorted; whatever else is registered with timm is left out."""
    return sorted(set(timm.list_modules()) - {own.MODULE})


def kinds(module: str) -> list[str]:
    """Architectures of a timm module, smallest first: one of each model class, block class and kind of FFN."""
    smallest: dict[tuple[str, ...], tuple[int, str]] = {}
    for architecture in timm.list_models(module=module):
        key: tuple[str, ...]
        try:
            backbone = at_nearest(BackboneSpec(architecture, architecture, architecture), CHECK_RESOLUTION, "meta")
        except LumaError:
            key, size = (), 0
        else:
            alone = str(backbone.ffn_kind and backbone.ffn.rule.alone)
            key = (class_name(backbone.model), block_name(backbone), backbone.ffn_kind, backbone.ffn_reason, alone)
            size = sum(parameter.numel() for parameter in backbone.parameters())
        smallest[key] = min(smallest.get(key, (size, architecture)), (size, architecture))
    return [architecture for _, architecture in sorted(smallest.values())]


def page(rows: Iterable[Row], others: Iterable[Row]) -> str:
    """The whole page: a table of one row per module, and one of the further kinds."""
    rows, others = list(rows), list(others)
    head = _HEAD.format(
        version=timm.__version__,
        resolution=SHAPE_RESOLUTION,
        attached=sum(bool(row.map) for row in rows),
        total=len(rows),
        reused=sum(row.ffn == "reused" for row in rows),
    )
    return "".join([head, "\n", table(rows), _SECOND, "\n", table(others)])


def table(rows: Iterable[Row]) -> str:
    """Rows as a Markdown table."""
    names = [field.name for field in fields(Row)]
    lines = [names, ["---"] * len(names), *([str(value) for value in astuple(row)] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def read_page(text: str) -> tuple[str, list[dict[str, str]]]:
    """The timm version that a page is about, and its rows as text, of both tables."""
    version = re.search(r"Coverage of timm (\S+)", text)
    names = [field.name for field in fields(Row)]
    cells = [
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    return version[1] if version else "", [
        dict(zip(names, line, strict=True)) for line in cells if line[0] not in names + ["---"]
    ]


def count_parameters(architecture: str) -> int | None:
    """Parameters of the architecture without classifier, on meta; None when it cannot be built by its name alone.

    >>> count_parameters("resnet18")
    11176512
    """
    try:
        with warnings.catch_warnings(action="ignore"), torch.device("meta"):
            model = timm.create_model(architecture, pretrained=False, num_classes=0)
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError):
        return None
    return sum(parameter.numel() for parameter in model.parameters())


def parameter_table(architectures: Iterable[str]) -> str:
    """The parameters of those that can be built, as CSV, sorted by name."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["architecture", "params"])
    counted = ((name, count_parameters(name)) for name in sorted(architectures))
    writer.writerows(row for row in counted if row[1] is not None)
    return out.getvalue()


def main() -> None:
    """Rewrite the page for the installed timm, or only the rows of the modules named; or the table of parameters."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("modules", nargs="*", help="timm modules to do again; all of them by default")
    parser.add_argument("--page", type=Path, default=_PAGE, help="file to write")
    parser.add_argument("--params", type=Path, metavar="OUT.csv", help="write the parameters of all models instead")
    arguments = parser.parse_args()
    if arguments.params:
        files.write_text(arguments.params, parameter_table(timm.list_models()))
        return
    path: Path = arguments.page
    rows, others = _kept(path, arguments.modules) if arguments.modules else ([], [])
    for module in track(arguments.modules or timm_modules(), console=Console(stderr=True), description="modules"):
        first, *further = kinds(module)
        rows.append(row(module, first))
        others += [row(module, architecture) for architecture in further]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(*(sorted(part, key=lambda row: row.module) for part in (rows, others))), encoding="utf-8")


def _kept(path: Path, modules: list[str]) -> tuple[list[Row], list[Row]]:
    """The rows of both tables of the page at `path`, without those of `modules`."""
    integers = {"size", "stride", "pruned"}

    def rows(text: str) -> list[Row]:
        cells = (each for each in read_page(text)[1] if each["module"] not in modules)
        return [Row(**{key: int(v) if key in integers else v for key, v in each.items()}) for each in cells]  # type: ignore[arg-type]

    first, second = path.read_text(encoding="utf-8").split(_SECOND)
    return rows(first), rows(second)


if __name__ == "__main__":
    main()
