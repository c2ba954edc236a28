"""An evaluation as a table, JSON or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TextIO

from luma_cli.report.table import Column, Table, columns, number, print_table
from luma_cli.store.records import ClassScore, EvaluationRecord
from luma_cli.units import gmacs

if TYPE_CHECKING:
    from luma_cli.export.export import Exported


SCHEMA = 1


def print_evaluation(record: EvaluationRecord, *, classes: bool = False, note: str = "") -> None:
    """Print the scores, those of every class with `classes`, the protocol, and `note`, to stdout."""
    print_table(score_table(record, note))
    if classes:
        print_table(class_table(record))


def score_table(record: EvaluationRecord, note: str = "") -> Table:
    """One row: the scores in percent, over how many classes, and what an image costs."""
    row = {
        "mIoU": number(record.miou_percent, 2),
        "mAcc": number(record.macc_percent, 2),
        "aAcc": number(record.aacc_percent, 2),
        "boundary IoU": number(record.boundary_miou_percent, 2),
        "classes": f"{record.num_present} of {record.num_classes}",
        "images": f"{record.num_images:,}",
        "windows/image": number(record.windows_per_image, 2),
        "GMACs/image": number(None if record.macs_per_image is None else gmacs(round(record.macs_per_image))),
        "s": number(record.seconds),
    }
    if record.boundary_miou_percent is None:
        del row["boundary IoU"]
    return Table(
        tuple(Column(heading, "right") for heading in row),
        (tuple(row.values()),),
        title=title(record),
        caption="\n".join(line for line in (protocol_line(record), _skipped(record), note) if line),
    )


def title(record: EvaluationRecord) -> str:
    """What was evaluated, on what."""
    what = record.run_id or f"checkpoint {record.checkpoint_sha256[:12]}"
    return f"{what} at step {record.step:,} on {record.data} {record.split}, {record.resolution} px"


def protocol_line(record: EvaluationRecord) -> str:
    """Everything that moves the number, in words; the protocol of another version of luma as it was kept."""
    said: Mapping[str, Any] = record.protocol
    scales = said.get("scales") or [1.0]
    views = "single scale, no flip" if scales == [1.0] and not said.get("flip") else _views(scales, said.get("flip"))
    absent = "classes absent from truth and prediction left out of the mean"
    if said.get("absent") == "zero":
        absent = "absent classes count 0 in the mean"
    parts = [f"windows of {said.get('window')} px", f"resize: {said.get('resize')}", views, absent]
    if said.get("boundary_ratio"):
        parts.append(f"boundary width {said['boundary_ratio']:.0%} of the diagonal")
    return "; ".join([*parts, f"dtype {said.get('dtype')}"])


def _views(scales: list[float], flip: Any) -> str:
    return f"scales {' '.join(f'{scale:g}' for scale in scales)}{' with and without flip' if flip else ''}, averaged"


def _skipped(record: EvaluationRecord) -> str:
    images = "image" if record.num_skipped == 1 else "images"
    return f"{record.num_skipped} unusable {images} left out" if record.num_skipped else ""


def class_table(record: EvaluationRecord) -> Table:
    """One row per class, in the order of the label table."""
    headings = ["class", "IoU>", "accuracy>", "boundary IoU>", "true pixels>"]
    with_boundary = record.boundary_miou_percent is not None
    rows = tuple(_class_cells(one, with_boundary) for one in record.classes)
    return Table(columns(*(headings if with_boundary else headings[:3] + headings[4:])), rows)


def _class_cells(one: ClassScore, with_boundary: bool) -> tuple[str, ...]:
    boundary = (number(one.boundary_iou_percent, 2),) if with_boundary else ()
    truth = f"{one.true_positive + one.false_negative:,}"
    return (one.name, number(one.iou_percent, 2), number(one.accuracy_percent, 2), *boundary, truth)


def write_evaluation_json(record: EvaluationRecord, file: TextIO, note: str = "") -> None:
    """Everything but the single images, which are in the store."""
    values = {name: value for name, value in asdict(record).items() if name != "images"}
    json.dump({"schema": SCHEMA, **values, "note": note}, file, indent=1, allow_nan=False)
    file.write("\n")


def write_evaluation_csv(record: EvaluationRecord, file: TextIO, *, classes: bool = False) -> None:
    """One row of scores, or with `classes` one per class; nothing where there is no number."""
    writer = csv.writer(file, lineterminator="\n")
    if classes:
        writer.writerow([field.name for field in fields(ClassScore)])
        writer.writerows([[_cell(value) for value in asdict(one).values()] for one in record.classes])
        return
    plain = {k: v for k, v in asdict(record).items() if k not in ("classes", "images", "protocol")}
    values = {**plain, **{f"protocol_{name}": value for name, value in record.protocol.items()}}
    writer.writerow(values)
    writer.writerow([_cell(value) for value in values.values()])


def _cell(value: Any) -> Any:
    return "" if value is None else value


def export_lines(made: Exported) -> Iterator[str]:
    """One line per output of the file, and one about the input."""
    facts = made.facts
    shape = f"[{facts.batch or 'any'}, 3, {facts.resolution}, {facts.resolution}]"
    if made.format != "safetensors":
        yield f"input images {shape}, RGB, normalised with mean and std of the file's metadata"
    for (name, shape), each in zip(facts.outputs, made.agreements, strict=True):
        yield (
            f"output {name} {shape}: differs from torch by at most {each.max_abs_difference:.2g} "
            f"({each.relative:.1g} of its largest value) on {made.num_inputs} random inputs"
        )
