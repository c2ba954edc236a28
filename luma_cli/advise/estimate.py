"""`luma estimate`: predicted mIoU of one segmenter with its own head and protocol, and its costs."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from luma_cli.accuracy.backbones import recognise
from luma_cli.accuracy.model import LearnedModel, load_model
from luma_cli.accuracy.sightings import Prediction, Sighting, usual_labels
from luma_cli.accuracy.subjects import Subject, subject_of
from luma_cli.advise.candidates import NUM_CLASSES, attached
from luma_cli.advise.costs import measured_rows, price
from luma_cli.catalogue.costs import load_costs
from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.rules import check_resolution, load_rules
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import BadResolution, UnknownName, UsageError
from luma_cli.evidence import cleaning
from luma_cli.evidence.evidence import Eval
from luma_cli.evidence.table import load_evidence
from luma_cli.speed.imported import every_latency
from luma_cli.speed.model import SpeedModel
from luma_cli.speed.quantity import Quantity
from luma_cli.units import BudgetKind

if TYPE_CHECKING:
    from luma_cli.catalogue.costs import BackboneFacts
    from luma_cli.catalogue.spec import BackboneSpec
    from luma_cli.speed.devices import DeviceSpec


SpeedOf = Callable[[HeadName], SpeedModel]
_DEVICE_KINDS: tuple[BudgetKind, ...] = ("ms", "images_per_second", "bytes", "joules")
_EVALS: Mapping[str, Eval] = {
    **dict.fromkeys(("", "single-scale", "ss", "single", "single scale"), "single-scale"),
    **dict.fromkeys(("ms+flip", "ms", "multi-scale", "multi scale", "ms + flip", "multiscale"), "ms+flip"),
}
_NEEDED = ("dataset", "backbone")
_TAG = re.compile(r"\.[a-z]", re.IGNORECASE)  # `.ms_in22k`, but not the size in `repvit_m1.1`


@dataclass(frozen=True, slots=True)
class Asked:
    """One segmenter as the user wrote it. resolution: `512`, `512x1024` or empty."""

    dataset: str
    backbone: str
    pretraining: str = ""
    resolution: str = ""
    head: str = "luma"
    eval: str = "single-scale"
    pretraining_data: str = ""
    params_m: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The answer for one segmenter. prediction: None where it is not known. remark: the reason, or assumptions."""

    asked: Asked
    subject: Subject | None
    prediction: Prediction | None
    costs: Mapping[BudgetKind, Quantity]
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        """Schema 1; unknown numbers are null."""
        said = self.prediction.to_json() if self.prediction else _NOTHING
        return {
            "dataset": self.asked.dataset,
            "backbone": self.asked.backbone,
            "pretraining": self.subject.objective if self.subject else self.asked.pretraining,
            "resolution": self.asked.resolution or None,
            "head": self.asked.head,
            "eval": self.asked.eval,
            "architecture": self.subject.architecture if self.subject else None,
            "series": (self.subject.lineage or None) if self.subject else None,
            **said,
            "reason": "; ".join(filter(None, (self.remark, said["reason"]))) or None,
            "costs": {kind: cost.to_json() for kind, cost in self.costs.items()},
        }


_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("miou", "miou_50", "miou_80", "miou_90", "evidence", "reason")),
    "extrapolated": True,
}


def estimate_all(
    asked: Sequence[Asked],
    *,
    device: str | None = None,
    device_spec: DeviceSpec | None = None,
    database: Path | None = None,
) -> tuple[list[Estimate], str]:
    """One estimate per row in order, and the note on LUMA's level. Raises StoreError, UsageError."""
    model = load_model(load_evidence(database))
    rows = measured_rows(database, device)
    speed = cache(
        lambda head: SpeedModel.load(rows, device, head=head, spec=device_spec, published=every_latency(database))
    )
    is_known = device is not None or device_spec is not None or len({row.conditions.device_name for row in rows}) == 1
    return estimates(asked, model, load_costs(), speed if is_known else None), model.scale_note


def read_asked(path: Path) -> list[Asked]:
    """The rows of a CSV file with the columns of `Asked`; other columns are ignored.

    Raises UsageError for a file that cannot be read or lacks dataset or backbone.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for name in _NEEDED:
                if name not in (reader.fieldnames or ()):
                    expected = f"expected {', '.join(_NEEDED)} and any of the others"
                    raise UsageError(f"{path} has no column {name}; {expected}")
            names = [field.name for field in fields(Asked)]
            rows = [{name: (row.get(name) or "").strip() for name in names} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} cannot be read as a CSV file: {reason}") from error
    defaults = {"head": "luma", "eval": "single-scale"}
    return [Asked(**{name: text or defaults.get(name, "") for name, text in row.items()}) for row in rows]


def estimates(
    asked: Sequence[Asked],
    model: LearnedModel,
    costs: Mapping[tuple[str, int], BackboneFacts],
    speed: SpeedOf | None = None,
) -> list[Estimate]:
    """One estimate per row, in order; a row that is not understood has a remark instead of a prediction.

    speed: the device's model for a head, None without a device.
    """
    read = [_subject(each, model.sightings.rows) for each in asked]
    known = [subject for subject, _ in read if subject is not None]
    predictions = iter(model.predict(known) if known else [])
    return [
        Estimate(each, subject, next(predictions), _costs(subject, costs, speed), remark)
        if subject is not None
        else Estimate(each, None, None, {}, remark)
        for each, (subject, remark) in zip(asked, read, strict=True)
    ]


def _subject(asked: Asked, rows: Sequence[Sighting]) -> tuple[Subject | None, str]:
    """The subject with its assumptions, or None with the reason."""
    evaluation = _EVALS.get(asked.eval.lower())
    if evaluation is None:
        return None, f"eval {asked.eval!r} is not known; use single-scale or ms+flip"
    try:
        height, width = cleaning.resolution(asked.resolution.replace("×", "x"))
        params = float(asked.params_m) * 1e6 if asked.params_m else None
    except ValueError as error:
        return None, str(error)
    if 0 in (height, width):
        return None, f"resolution {asked.resolution!r} has no pixels; use e.g. 512 or 512x1024"
    name, pretraining, remark = _named(asked)
    subject = subject_of(
        name,
        asked.dataset.strip().lower(),
        resolution=(height, width) if height and width else None,
        pretraining=pretraining,
        pretraining_data=asked.pretraining_data,
        head=asked.head,
        evaluation=evaluation,
        params=params,
    )
    if not subject.lineage and subject.params is None:
        return None, f"backbone {asked.backbone!r} is not recognised: neither its series nor its size is known"
    subject, variant = _with_variant(subject, rows)
    if _is_vague(asked, name):
        labels = usual_labels(subject, rows)
        said = "labels" if asked.pretraining else "pretraining"
        remark = f"{said} not given, {labels} assumed by its size"
        subject = replace(subject, pretraining=labels)
    else:
        remark = remark or _misunderstood(asked, subject)
    return subject, "; ".join(filter(None, (remark, variant)))


def _with_variant(subject: Subject, rows: Sequence[Sighting]) -> tuple[Subject, str]:
    """With the commonest variant where the evidence has only variants: `segmenter-mask` for `segmenter`."""
    heads = Counter(row.head for row in rows if row.regime == subject.regime)
    variants = [name for name in heads if subject.head and name.startswith(f"{subject.head}-")]
    if subject.head in (*heads, "luma") or not variants:
        return subject, ""
    commonest = min(variants, key=lambda name: (-heads[name], name))
    return replace(subject, head=commonest), f"head {subject.head} taken as {commonest}"


def _misunderstood(asked: Asked, subject: Subject) -> str:
    """A remark on an unknown pretraining and its replacement; empty otherwise."""
    tag = "" if asked.pretraining or not _TAG.search(asked.backbone) else asked.backbone.partition(".")[2]
    said = asked.pretraining or tag
    alone = subject_of("", subject.dataset, pretraining=said, pretraining_data=asked.pretraining_data)
    if said.lower() in ("", "other") or alone.pretraining != "other" or (tag and subject.pretraining != "other"):
        return ""
    return f"pretraining {said!r} is not known, {subject.pretraining} assumed; luma list shows what is known"


def _is_vague(asked: Asked, name: str) -> bool:
    # On which labels the backbone was pretrained is not given.
    words = asked.pretraining.strip().lower()
    return not _TAG.search(name) and not asked.pretraining_data and words in ("", "supervised", "sup", "imagenet")


def _named(asked: Asked) -> tuple[str, str, str]:
    """The timm name with its tag, the objective that it implies, and a remark.

    Without a pretraining, timm's default weights are assumed.
    """
    name = asked.backbone
    if "." in name and (known := _resolved(name)) is not None and known.tag:
        return known.timm_name, asked.pretraining or known.pretraining, ""
    spec = None
    if "." not in name or recognise(name).architecture != name.partition(".")[0]:
        spec = _resolved(f"{name}.{asked.pretraining}" if asked.pretraining else name)
    if spec is None:
        return name, asked.pretraining, ""
    entry = load_index().get(spec.architecture)
    tag = spec.tag or (entry.default_tag if entry else "")
    name = f"{spec.architecture}.{tag}" if tag and not spec.tag else spec.timm_name
    if not spec.pretraining and not tag:
        return name, asked.pretraining, ""
    return name, spec.pretraining, "" if spec.tag else f"weights not given, {name} assumed"


def countable_side(asked: Asked) -> int | None:
    """The side of the square crop, in pixels, that can be counted and has about as many pixels; None for no backbone.

    >>> countable_side(Asked("ade20k", "vit_b", resolution="512x1024"))
    720
    """
    spec = _resolved(asked.backbone)
    if spec is None:
        return None
    height, width = cleaning.resolution(asked.resolution.replace("×", "x"))
    side = round(math.sqrt((height or 0) * (width or 0)))
    entry = load_index().get(spec.architecture)
    if entry is None:
        return side
    rule = load_rules().model_rule(entry.module, entry.cls, spec.architecture, spec.rule)
    for away in range(side):
        for near in (side - away, side + away):
            with suppress(BadResolution):
                check_resolution(spec.name, near, rule, spec.architecture)
                return near
    return None


def _resolved(name: str) -> BackboneSpec | None:
    try:
        return resolve(name)
    except UnknownName:
        return None


def _costs(
    subject: Subject, costs: Mapping[tuple[str, int], BackboneFacts], speed: SpeedOf | None
) -> dict[BudgetKind, Quantity]:
    """Counts where the cost table has the size and luma has the head; device costs where the device is known."""
    facts = costs.get((subject.architecture, subject.height or 0)) if subject.height == subject.width else None
    if facts is None or subject.head not in get_args(HeadName):
        return {}
    head = HeadConfig(name=cast(HeadName, subject.head), num_classes=NUM_CLASSES.get(subject.dataset, 150))
    candidate = attached(resolve(subject.architecture), facts, head)
    if candidate is None:
        return {}
    (priced,) = price([candidate], _DEVICE_KINDS, speed and speed(head.name), head.name, head.num_classes)
    return dict(priced.costs)
