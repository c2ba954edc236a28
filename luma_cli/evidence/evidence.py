"""What is known about accuracy: one row per published or own result, each on the scale of its head and protocol.

mIoU figures of two heads, regimes (frozen, fine-tuned) or test-time protocols are not comparable: published frozen
probes of ViT-B spread about 20 points between pretraining objectives, fine-tuned heads 1 to 4. `Scale` is that
distinction as a value, and nothing in this package ranks rows of two scales together.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, fields
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

HEAD_TITLES = {"luma": "LUMA", "eomt": "EoMT", "upernet": "UPerNet", "mask2former": "Mask2Former"}
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

    def to_json(self) -> dict[str, str]:
        """The scale's own fields and its label."""
        return {
            "label": self.label,
            "dataset": self.dataset,
            "split": self.split,
            "head": self.head,
            "recipe": self.recipe,
            "regime": self.regime,
            "eval": self.eval,
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured mIoU with everything that decides what it may be compared with.

    id: stable, `ref-` and the row of the source table for shipped rows. height, width: training crop in pixels, None
    when the source does not say. pretraining: objective from our list, `other` when not in it. timm: checkpoint or
    architecture in timm, empty when timm has none. backbone_params_m is not kept: params_m with its scope is what was
    printed. extra_data: further labelled or pseudo-labelled images before the training measured here. doubtful: why
    the mIoU is not to be relied on, empty when nothing speaks against it. remarks: doubts about other columns.
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
        """Frozen probes are comparable within one source only: their protocols differ more than their backbones."""
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

    def to_json(self) -> dict[str, Any]:
        """What a reader needs to find and judge the figure."""
        return {
            "id": self.id,
            "provenance": self.provenance,
            "miou_percent": self.miou_percent,
            "backbone": self.backbone,
            "size": [self.height, self.width] if self.height and self.width else None,
            "scale": self.scale.label,
            "trust": self.trust,
            "doubtful": self.doubtful or None,
            "source": self.source,
            "url": self.url,
        }


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Evidence))
_NUMBERS: dict[str, type] = {
    "miou_percent": float,
    "height": int,
    "width": int,
    "params_m": float,
    "gflops_published": float,
    "seeds": int,
}


def reference_path() -> Path:
    """The shipped table of published results."""
    return files.root() / "profiles" / "reference" / "segmentation_results.csv"


def read_evidence(path: Path) -> list[Evidence]:
    """Every row of a cleaned table. Raises BadCard, naming file and line, for a column or number that does not parse.

    >>> len(read_evidence(reference_path())) > 900
    True
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise BadCard(f"{path}: columns {header} are not {list(COLUMNS)}; import the table again")
        return [_evidence(f"{path}, line {reader.line_num}", row) for row in reader]


def _evidence(where: str, row: list[str]) -> Evidence:
    if len(row) != len(COLUMNS):
        raise BadCard(f"{where}: {len(row)} columns, expected {len(COLUMNS)}")
    return of_row(where, dict(zip(COLUMNS, row, strict=True)))


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
    texts = {name: getattr(evidence, name) for name in COLUMNS}
    return {
        name: "" if value is None else repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
        for name, value in texts.items()
    }


def load_reference() -> list[Evidence]:
    """The shipped rows: published results, with LUMA's one figure among them."""
    return read_evidence(reference_path())
