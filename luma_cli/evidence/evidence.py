"""What is known about accuracy: one row per published or own result, each on the scale of its head and protocol.

mIoU figures of two heads, regimes (frozen, fine-tuned) or test-time protocols are not comparable: published frozen
probes of ViT-B spread about 20 points between pretraining objectives, fine-tuned heads 1 to 4. `Scale` is that
distinction as a value, and nothing in this package ranks rows of two scales together.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from luma_cli import files
from luma_cli.errors import BadCard

Provenance = Literal["own run", "published LUMA", "other head"]
Regime = Literal["fine-tuned", "frozen"]
Eval = Literal["single-scale", "ms+flip", ""]

# How sure the source is about its own protocol: its table, our inference of a missing detail, or a copy of the table.
Trust = Literal["primary", "inferred", "secondary"]

# Crops of 518 stand for 512 (patch 14), 769 for 768 (aligned corners), 512x1024 for 768: the same pixels within 15%.
# The next size of a usual sweep is at least 1.4 times as large.
AREA_TOLERANCE = 1.15

HEAD_TITLES = {
    "luma": "LUMA",
    "luma-snapshot": "LUMA, authors' snapshot of April 2026",
    "eomt": "EoMT",
    "upernet": "UPerNet",
    "mask2former": "Mask2Former",
}
DATASET_TITLES = {"ade20k": "ADE20K", "cityscapes": "Cityscapes"}


@dataclass(frozen=True, slots=True, order=True)
class Scale:
    """One set of mIoU figures that may be compared with each other.

    recipe: empty for the head's usual recipe; a name when an implementation or a source follows one of its own.
    """

    dataset: str
    split: str
    head: str
    recipe: str
    regime: str
    eval: str

    @property
    def label(self) -> str:
        """One line for tables, e.g. `EoMT (lightly-train), fine-tuned, single-scale, ADE20K val`."""
        head = HEAD_TITLES.get(self.head, self.head or "head not stated")
        recipe = f" ({self.recipe})" if self.recipe else ""
        dataset = DATASET_TITLES.get(self.dataset, self.dataset)
        return f"{head}{recipe}, {self.regime}, {self.eval or 'scales not stated'}, {dataset} {self.split}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured mIoU with everything that decides what it may be compared with.

    id: stable, `ref-` and the row of the source table for shipped rows. height, width: training crop in pixels, None
    when not stated. pretraining: objective from our list, else `other`. timm: checkpoint or architecture in timm, empty
    when timm has none. params_m: as printed, with its scope. extra_data: further labelled or pseudo-labelled images
    before the training measured here. doubtful: why the mIoU is unreliable, else empty. remarks: doubts about other
    columns.
    """

    id: str
    provenance: Provenance
    trust: Trust
    dataset: str
    split: str
    head: str
    regime: Regime
    eval: Eval
    backbone: str
    miou_percent: float
    height: int | None = None
    width: int | None = None
    recipe: str = ""
    schedule: str = ""
    pretraining: str = ""
    pretraining_raw: str = ""
    pretraining_data: str = ""
    extra_data: str = ""
    family: str = ""
    timm: str = ""
    architecture: str = ""
    in_timm: str = ""
    params_m: float | None = None
    params_scope: str = ""
    gflops_published: float | None = None
    flops_unit: str = ""
    head_raw: str = ""
    seeds: int = 1
    source: str = ""
    url: str = ""
    doubtful: str = ""
    remarks: str = ""
    notes: str = ""

    @property
    def scale(self) -> Scale:
        """The figures that this one may be compared with."""
        # Frozen probes of two sources differ more by their protocols than by their backbones.
        recipe = self.recipe or (self.source if self.regime == "frozen" else "")
        return Scale(self.dataset, self.split, self.head, recipe, self.regime, self.eval)

    @property
    def size(self) -> str:
        """The crop as `512x512`, or `size not stated`."""
        return f"{self.height}x{self.width}" if self.height and self.width else "size not stated"

    def at(self, resolution: int) -> bool:
        """Whether this was measured on square crops of `resolution` pixels."""
        return self.height == resolution and self.width == resolution

    def near(self, resolution: int) -> bool:
        """Whether the crop's area is within 15% of `resolution` squared: 518 for 512, 512x1024 for 768."""
        area = (self.height or 0) * (self.width or 0)
        return bool(area) and 1 / AREA_TOLERANCE <= area / resolution**2 <= AREA_TOLERANCE

    def __json__(self) -> dict[str, Any]:
        """What a reader needs to find and judge the figure."""
        plain = ("id", "provenance", "miou_percent", "backbone", "trust", "source", "url")
        return {
            **{name: getattr(self, name) for name in plain},
            "size": [self.height, self.width] if self.height and self.width else None,
            "scale": self.scale.label,
            "doubtful": self.doubtful or None,
        }


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Evidence))
_NUMBERS = {
    **dict.fromkeys(("miou_percent", "params_m", "gflops_published"), float),
    **dict.fromkeys(("height", "width", "seeds"), int),
}


def reference_path() -> Path:
    """The shipped table of published results."""
    return files.root() / "profiles" / "reference" / "segmentation_results.csv"


def read_evidence(path: Path) -> list[Evidence]:
    """Every row of a cleaned table. Raises BadCard, naming file and line, for what does not parse."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        if tuple(header := next(reader, [])) != COLUMNS:
            raise BadCard(f"{path}: columns {header} are not {list(COLUMNS)}; import the table again")
        rows = []
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(COLUMNS):
                raise BadCard(f"{where}: {len(cells)} columns, expected {len(COLUMNS)}")
            rows.append(of_row(where, dict(zip(COLUMNS, cells, strict=True))))
    return rows


def of_row(where: str, texts: Mapping[str, str]) -> Evidence:
    """The evidence of a row of the cleaned table, the opposite of `to_row`. Raises BadCard that begins with `where`."""
    values: dict[str, Any] = dict(texts)
    for name, kind in _NUMBERS.items():
        try:
            values[name] = kind(values[name]) if values[name] else None
        except ValueError as error:
            raise BadCard(f"{where}: {name} is {values[name]!r}, expected a number") from error
    if values["miou_percent"] is None or not 0 < values["miou_percent"] < 100:
        raise BadCard(f"{where}: mIoU is {values['miou_percent']}, expected a percentage")
    values["seeds"] = values["seeds"] or 1
    return Evidence(**values)


def to_row(evidence: Evidence) -> dict[str, str]:
    """The evidence as a row of the cleaned table; numbers keep every digit."""
    return {name: _text(getattr(evidence, name)) for name in COLUMNS}


def _text(value: object) -> str:
    if value is None:
        return ""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def load_reference() -> list[Evidence]:
    """The shipped rows: published results, with LUMA's one figure among them."""
    return read_evidence(reference_path())


SNAPSHOT = "LUMA's authors' snapshot of April 2026 (development code, low trust; its level is not LUMA's)"


@dataclass(frozen=True, slots=True)
class SnapshotSeries:
    """MIoU in percent by resolution in pixels of one backbone in that snapshot; backbone as the table names it."""

    backbone: str
    miou_percent: Mapping[int, float]


def load_snapshot() -> list[SnapshotSeries]:
    """What can be compared inside the table of LUMA's authors' snapshot, for findings alone.

    The advisor does not learn from it: with it, `luma recommend --audit` was worse on the other rows. What is known of
    the table is in the head of `profiles/reference/luma_authors.csv`, and why a row is left out beside it.
    """
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in files.read_csv(files.root() / "profiles" / "reference" / "luma_authors.csv"):
        if not row["left_out"]:
            found[row["model"]][int(row["resolution"])] = float(row["miou_percent"])
    return [SnapshotSeries(name, figures) for name, figures in found.items()]


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters that must all hold; empty ones do not count, and case does not matter.

    dataset, head, pretraining, provenance, regime: the whole word. backbone: part of the name or of the timm name.
    source: part of it. doubtful: only rows that are (True) or are not (False). imported: only such rows.
    """

    dataset: str = ""
    head: str = ""
    backbone: str = ""
    pretraining: str = ""
    provenance: str = ""
    regime: str = ""
    source: str = ""
    doubtful: bool | None = None
    imported: bool = False

    def of(self, rows: Iterable[Evidence]) -> list[Evidence]:
        """The rows that pass every filter, in their order."""
        return [row for row in rows if self._holds(row)]

    def _holds(self, row: Evidence) -> bool:
        whole = ("dataset", "head", "pretraining", "provenance", "regime")
        asked = ((getattr(self, name).lower(), getattr(row, name).lower()) for name in whole)
        return (
            all(not wanted or wanted == value for wanted, value in asked)
            and self.backbone.lower() in f"{row.backbone}\n{row.timm}".lower()
            and self.source.lower() in row.source.lower()
            and (not self.imported or row.id.startswith("imp-"))
            and self.doubtful in (None, bool(row.doubtful))
        )


# Two trainings of one model differ by less: seeds by about 0.3 points, a source's two tables by rounding.
TOLERANCE_POINTS = 1.0


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Rows of one model, protocol and source whose mIoU is more than one point apart."""

    rows: tuple[Evidence, ...]

    @property
    def text(self) -> str:
        """e.g. `vit_b, EoMT, ..., 512x512 (my table): 48.1 and 51.3 mIoU`."""
        first = self.rows[0]
        figures = " and ".join(f"{value:.4g}" for value in sorted({row.miou_percent for row in self.rows}))
        return f"{first.backbone}, {first.scale.label}, {first.size} ({first.source}): {figures} mIoU"


def contradictions(rows: Sequence[Evidence]) -> list[Contradiction]:
    """Every group of `rows` that cannot all be right, in the order of its first row."""
    groups: dict[object, list[Evidence]] = defaultdict(list)
    for row in rows:
        groups[_subject(row)].append(row)
    figures = ((group, [row.miou_percent for row in group]) for group in groups.values())
    return [Contradiction(tuple(group)) for group, miou in figures if max(miou) - min(miou) > TOLERANCE_POINTS]


def marked(rows: Sequence[Evidence], beside: Sequence[Evidence] = ()) -> list[Evidence]:
    """`rows`, those doubtful that contradict another of them or one of `beside`, which stay as they are."""
    doubts: dict[str, str] = {}
    for contradiction in contradictions([*rows, *beside]):
        for row in contradiction.rows:
            others = sorted({f"{other.miou_percent:.4g}" for other in contradiction.rows if other is not row})
            doubts[row.id] = f"the same source also has {', '.join(others)} mIoU for it"
    return [
        replace(row, doubtful="; ".join(filter(None, (row.doubtful, doubts[row.id])))) if row.id in doubts else row
        for row in rows
    ]


def _subject(row: Evidence) -> tuple[object, ...]:
    model = (row.backbone, row.pretraining, row.pretraining_raw, row.pretraining_data, row.extra_data)
    return (*model, row.height, row.width, row.scale, row.schedule, row.source)


_TOP1_COLUMNS = ["timm", "img_size", "top1_percent"]


@cache
def top1_percent() -> Mapping[str, float]:
    """ImageNet-1k top-1 in percent by timm name with its tag: a predictor to be tested, never evidence.

    Only exact tags, at the smallest size published, mostly that of training: larger ones are test-time upscaling.
    Source: https://github.com/huggingface/pytorch-image-models, `results/results-imagenet.csv`.

    >>> round(top1_percent()["resnet50.a1_in1k"], 1)
    80.4
    """
    return read_top1(files.root() / "profiles" / "reference" / "imagenet_top1.csv")


def read_top1(path: Path) -> dict[str, float]:
    """The table at `path`. Raises BadCard, naming file and line, for a column or number that does not parse."""
    best: dict[str, tuple[int, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        if next(reader, []) != _TOP1_COLUMNS:
            raise BadCard(f"{path}: the first line is not {','.join(_TOP1_COLUMNS)}; restore the file")
        for line, row in enumerate(reader, start=2):
            try:
                name, side, top1 = row
                found = int(side), float(top1)
            except ValueError as error:
                raise BadCard(f"{path}, line {line}: {row} is not a name, a size and a percentage") from error
            if not 0 < found[1] < 100:
                raise BadCard(f"{path}, line {line}: top-1 is {top1}, expected a percentage")
            if name not in best or found < best[name]:
                best[name] = found
    return {name: top1 for name, (_, top1) in best.items()}
