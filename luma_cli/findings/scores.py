"""mIoU figures made ready for matched comparisons: published ones by table, own ones by model and head, and pairs.

Figures of one checkpoint in one table (seeds, variants of a recipe) are averaged, so that they count once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from statistics import fmean
from typing import TypeVar

from luma_cli.accuracy.backbones import recognise
from luma_cli.evidence.evidence import Evidence, Scale
from luma_cli.evidence.own_runs import differences
from luma_cli.findings.finding import EvidenceRow, rows_of
from luma_cli.store.runs import OwnRun

Item = TypeVar("Item")

_SUPERVISED = re.compile(r"supervised|deit3?\b")
# Plain ViTs under other names: `franca_vitb14`, `radio_v2.5_vitl16`, `deit3_base_patch16_224`.
_PLAIN = re.compile(
    r"(?:vit(?:_pe_core|_pe_spatial)?|deit3?|beit(?:v2)?)_(tiny|small|base|large|huge|giant|gigantic|7b)"
)
_SHORT = re.compile(r"(?:franca|capi|dune|lingbot_vision|vjepa[\d.]+|c?[-_]?radio[\w.-]*?)_(?:vit)?([sblhg])(?:1[46])?")
_LETTERS = {"s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
# Scale, crop in tokens of 16 pixels, source and schedule: what two scores must share to be compared.
_Cell = tuple[Scale, tuple[int, int] | None, str, str]
_INPUT = re.compile(r"(_patch(?!8)\d+.*|_window\d+.*|_\d{3})$")


@dataclass(frozen=True, slots=True)
class TableScore:
    """The mean figure of one checkpoint in one table.

    shape: architecture without weights, patch and input size; series: what it is a size or a variant of. objective,
    data: of its pretraining. params_m: of the backbone in millions, None when not known. publisher: who made the
    figure, the unit that is resampled. weights: exact timm name, empty when not known. ids: of the evidence.
    """

    cell: _Cell
    shape: str
    series: str
    objective: str
    data: str
    miou_percent: float
    params_m: float | None
    publisher: str
    weights: str
    ids: tuple[str, ...]


def scores(evidence: Iterable[Evidence]) -> list[TableScore]:
    """One score per checkpoint and table, without doubtful rows and those with further labelled data."""
    groups: dict[tuple[_Cell, str, str, str, str], list[Evidence]] = defaultdict(list)
    for row in evidence:
        if not row.doubtful and not row.extra_data and (name := objective(row)):
            weights = row.timm if row.in_timm == "tag" else ""
            shape = shape_of(row.architecture or row.backbone)
            groups[_cell(row), shape, name, row.pretraining_data, weights].append(row)
    found = []
    for (cell, shape, name, data, weights), rows in groups.items():
        lineage = recognise(rows[0].architecture or rows[0].backbone).lineage
        params = next((size for row in rows if (size := params_m(row))), None)
        miou, ids = fmean(row.miou_percent for row in rows), tuple(sorted(row.id for row in rows))
        series = lineage.name if lineage is not None else shape
        found.append(TableScore(cell, shape, series, name, data, miou, params, publisher(rows[0]), weights, ids))
    return found


def _cell(row: Evidence) -> _Cell:
    # Patch 14 at 448 px gives as many tokens as patch 16 at 512 px.
    patch = 14 if re.search(r"patch14|vit[sblhg]14", row.backbone) else 16
    tokens = None if row.height is None or row.width is None else (round(row.height / patch), round(row.width / patch))
    # A run's own source is its id, which would keep two runs apart that may be compared.
    return row.scale, tokens, "your runs" if row.provenance == "own run" else row.source, row.schedule


@cache
def shape_of(architecture: str) -> str:
    """A timm architecture or published name without its weights, patch and input size; plain ViTs by their size alone.

    >>> shape_of("vit_base_patch14_dinov2"), shape_of("franca_vitb14"), shape_of("swin_tiny_patch4_window7_224")
    ('vit_base', 'vit_base', 'swin_tiny')
    """
    bare = _INPUT.sub("", re.sub(r"\s*\(.*$", "", architecture).strip())
    if plain := _PLAIN.fullmatch(bare):
        return f"vit_{plain[1]}"
    if short := _SHORT.fullmatch(bare):
        return f"vit_{_LETTERS[short[1]]}"
    return bare


def objective(row: Evidence) -> str:
    """The pretraining objective, empty when not stated: ImageNet-1k and -21k labels are one objective."""
    name = row.pretraining if row.pretraining not in ("", "other") else row.pretraining_raw.strip().lower()
    return "supervised" if _SUPERVISED.match(name) else name


def params_m(row: Evidence) -> float | None:
    """Parameters of the backbone in millions, counted or published; None where only a size word is known."""
    found = recognise(row.architecture or row.backbone)
    if found.params is None or found.size_origin == "by its size word":
        return row.params_m if "backbone" in row.params_scope else None
    return found.params / 1e6


def publisher(row: Evidence) -> str:
    """Who made the figure: all tables of one paper or repository are one, and so are a user's runs of one backbone.

    >>> from types import SimpleNamespace as Stub
    >>> publisher(Stub(provenance="other head", source="mmsegmentation 0.28 model zoo, configs/vit/vit.yml"))
    'mmsegmentation 0.28 model zoo'
    """
    if row.provenance == "own run":
        return f"your runs, {row.architecture}"
    return re.split(r"[,(]| Table ", row.source)[0].strip()


@dataclass(frozen=True, slots=True)
class OwnScore:
    """One model of the user's with one head: the mean mIoU over its seeds. ids: of the runs."""

    timm_name: str
    resolution: int
    head: str
    miou_percent: float
    ids: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """The timm name without its tag."""
        return self.timm_name.split(".")[0]


def usable(run: OwnRun, dataset: str, own_weights: bool = False) -> bool:
    """Whether the run differs from the usual one of the dataset in head and backbone alone.

    own_weights: whether weights from a file or folder of the user's will do; random ones never do.
    """
    trained = own_weights and run.weights != "random"
    return all(trained and aspect == "weights" for aspect, _ in differences(run, dataset))


def own_scores(runs: Iterable[OwnRun], dataset: str, own_weights: bool = False) -> list[OwnScore]:
    """Mean score of every model and head over seeds, in a fixed order; own_weights as in `usable`."""
    groups: dict[tuple[str, int, str], list[OwnRun]] = defaultdict(list)
    for run in runs:
        if usable(run, dataset, own_weights):
            groups[run.timm_name, run.resolution, run.head.name].append(run)
    return [
        OwnScore(*key, fmean(run.miou_percent for run in group), tuple(sorted(run.run_id for run in group)))
        for key, group in sorted(groups.items())
    ]


def pairs(
    items: Iterable[Item], fixed: Callable[[Item], Hashable], ordered: Callable[[Item, Item], bool]
) -> list[tuple[Item, Item]]:
    """Every two items that share what is `fixed` and for which `ordered(first, second)` holds."""
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[fixed(item)].append(item)
    return [pair for group in groups.values() for pair in permutations(group, 2) if ordered(*pair)]


def rows_behind(evidence: Iterable[Evidence], found: Iterable[Iterable[TableScore | OwnScore]]) -> list[EvidenceRow]:
    """The evidence that the scores of these pairs or groups were made of."""
    return rows_of(evidence, {each for scores in found for score in scores for each in score.ids})
