"""An evaluation as a table, JSON or CSV; what was exported, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from luma_cli.report.table import Column, Table, columns, number, print_csv, print_json, print_table
from luma_cli.store.records import ClassScore, EvaluationRecord
from luma_cli.units import gmacs

if TYPE_CHECKING:
    from luma_cli.export.export import Exported


SCHEMA = 1


def print_evaluation(
    record: EvaluationRecord,
    *,
    classes: bool = False,
    note: str = "",
    checkpoint: str = "",
    as_json: bool = False,
    as_csv: bool = False,
) -> None:
    """Print the scores with protocol and note to stdout, or those of every class with `classes`.

    checkpoint: which one of its run it is, `best` or `latest`; empty where that is not known.

    JSON has everything but the single images, which are in the store; CSV one row, or with `classes` one per class.
    """
    values = {
        field.name: getattr(record, field.name) for field in fields(record) if field.name not in ("images", "scores")
    }
    if as_json:
        print_json({"schema": SCHEMA, **values, "note": note, "checkpoint": checkpoint})
    elif as_csv and classes:
        names = [field.name for field in fields(ClassScore)]
        print_csv(names, [[getattr(one, name) for name in names] for one in record.classes])
    elif as_csv:
        plain = {name: value for name, value in values.items() if name not in ("classes", "protocol")}
        plain |= {f"protocol_{name}": value for name, value in record.protocol.items()}
        print_csv(list(plain), [list(plain.values())])
    else:
        print_table(score_table(record, note, checkpoint))
        if classes:
            print_table(class_table(record))


def score_table(record: EvaluationRecord, note: str = "", checkpoint: str = "") -> Table:
    """One row: the scores in percent, the number of classes, and the cost of an image."""
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
    what = f"{record.run_id or f'checkpoint {record.checkpoint_sha256[:12]}'} at step {record.step:,}"
    what += f", {checkpoint} checkpoint" if checkpoint else ""
    where = f"on {record.data} {record.split}"
    if "label_maps" in record.protocol:
        what = "label maps"
        del row["windows/image"], row["GMACs/image"], row["s"]
    else:
        where += f", {record.resolution} px"
    images = "image" if record.num_skipped == 1 else "images"
    skipped = f"{record.num_skipped} unusable {images} left out" if record.num_skipped else ""
    return Table(
        tuple(Column(heading, "right") for heading in row),
        (tuple(row.values()),),
        title=f"{what} {where}",
        caption="\n".join(filter(None, (protocol_line(record), skipped, note))),
    )


def protocol_line(record: EvaluationRecord) -> str:
    """The protocol in words. Keys may be missing: an older version of luma may have written it."""
    said: Mapping[str, Any] = record.protocol
    scales = said.get("scales") or [1.0]
    views = "single scale, no flip"
    if scales != [1.0] or said.get("flip"):
        flip = " with and without flip" if said.get("flip") else ""
        views = f"scales {' '.join(f'{scale:g}' for scale in scales)}{flip}, averaged"
    absent = "classes absent from truth and prediction left out of the mean"
    if said.get("absent") == "zero":
        absent = "absent classes count 0 in the mean"
    boundary = f"boundary width {said['boundary_ratio']:.0%} of the diagonal" if said.get("boundary_ratio") else ""
    matched = said.get("classes", "")
    if matched:
        matched = f"classes matched by name: {matched}, a pixel is given to the likeliest of them"
    if read_as := said.get("label_maps"):
        parts = ["class indices" if read_as == "index" else "the dataset's own values", absent, boundary]
    else:
        windows = f"windows of {said.get('window')} px"
        parts = [
            windows,
            f"resize: {said.get('resize')}",
            views,
            absent,
            boundary,
            matched,
            f"dtype {said.get('dtype')}",
        ]
    return "; ".join(filter(None, parts))


def class_table(record: EvaluationRecord) -> Table:
    """One row per class, in the order of the dataset."""
    boundary = record.boundary_miou_percent is not None
    headings = ("class", "IoU>", "accuracy>", *(["boundary IoU>"] if boundary else []), "true pixels>")
    rows = []
    for one in record.classes:
        scores = [one.iou_percent, one.accuracy_percent, *([one.boundary_iou_percent] if boundary else [])]
        truth = f"{one.true_positive + one.false_negative:,}"
        rows.append((one.name, *(number(score, 2) for score in scores), truth))
    return Table(columns(*headings), tuple(rows))


def print_unknown(
    record: EvaluationRecord, *, num_unlabelled: int = 0, as_json: bool = False, as_csv: bool = False
) -> None:
    """Print how well doubt tells unknown objects; JSON and CSV have the record's fields and scores."""
    left_out = ("images", "classes", "scores", "miou_percent", "macc_percent", "aacc_percent", "boundary_miou_percent")
    values = {field.name: getattr(record, field.name) for field in fields(record) if field.name not in left_out}
    if as_json:
        print_json({"schema": SCHEMA, **values, **record.scores, "num_unlabelled": num_unlabelled})
    elif as_csv:
        plain = {name: value for name, value in values.items() if name != "protocol"} | record.scores
        plain |= {f"protocol_{name}": value for name, value in record.protocol.items()}
        print_csv(list(plain), [list(plain.values())])
    else:
        images = "image has" if num_unlabelled == 1 else "images have"
        note = f"{num_unlabelled:,} {images} no mask and were left out" if num_unlabelled else ""
        table = unknown_table([record])
        title = f"{record.run_id or f'checkpoint {record.checkpoint_sha256[:12]}'} at step {record.step:,}"
        caption = "\n".join(filter(None, (table.caption, f"windows of {record.resolution} px", note)))
        print_table(replace(table, title=f"{title}: unknown objects", caption=caption))


def unknown_table(records: Sequence[EvaluationRecord]) -> Table:
    """One row for each evaluation on unknown objects, in percent."""
    rows = []
    for one in records:
        names = ("ood_auprc_percent", "ood_auroc_percent", "ood_fpr95_percent", "ood_share_percent")
        scores = [number(one.scores.get(name), 2) for name in names]
        said = str(one.protocol.get("confidence", ""))
        rows.append((one.data, said, f"{one.step:,}", *scores, f"{one.num_images:,}"))
    return Table(
        columns("data", "confidence", "step>", "AUPRC>", "AUROC>", "FPR95>", "unknown>", "images>"),
        tuple(rows),
        caption="percent of pixels, all images together; unknown: their share, which is the AUPRC of guessing",
    )


def export_lines(made: Exported) -> Iterator[str]:
    """The input of an exported file, and how far each output differs from torch."""
    facts = made.facts
    shape = f"[{facts.batch or 'any'}, 3, {facts.resolution}, {facts.resolution}]"
    if made.format != "safetensors":
        yield f"input images {shape}, RGB, normalised with mean and std of the file's metadata"
    for (name, shape), each in zip(facts.outputs, made.agreements, strict=True):
        yield (
            f"output {name} {shape}: differs from torch by at most {each.max_abs_difference:.2g} "
            f"({each.relative:.1g} of its largest value) on {made.num_inputs} random inputs"
        )
