"""What was found in a dataset, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from luma_cli.catalogue.datasets import DatasetCard
from luma_cli.data.check import SplitReport
from luma_cli.data.source import Root, find_root, shown
from luma_cli.errors import DataError
from luma_cli.report.table import Table, columns, print_table


def print_check(card: DatasetCard, root: Root, reports: Sequence[SplitReport], file: TextIO) -> None:
    """Print how often each class occurs in each split, then warnings and problems, one a line."""
    headings = [f"{report.split} {what}>" for report in reports for what in ("images", "pixels %")]
    rows = [
        (each.name, *(cell for report in reports for cell in _cells(report, index)))
        for index, each in enumerate(card.table.classes)
    ]
    rows.append(("(ignored)", *(cell for report in reports for cell in ("", f"{report.ignored_share:.3%}"[:-1]))))
    title = f"{card.title} at {shown(str(root.place))}: " + "; ".join(_summary(report) for report in reports)
    print_table(Table(columns("class~", *headings), tuple(rows), title=title), file)
    for report in reports:
        for kind, texts in (("note", report.warnings), ("problem", report.problems)):
            for text in texts:
                print(f"# {report.split}: {kind}: {' '.join(text.split())}", file=file)


def _cells(report: SplitReport, index: int) -> tuple[str, str]:
    each = report.classes[index]
    return f"{each.images:,}", f"{each.pixels / report.pixels if report.pixels else 0:.3%}"[:-1]


def _summary(report: SplitReport) -> str:
    return f"{report.split} {report.num_images:,} images, {report.identity}"


def check_json(card: DatasetCard, root: Root, reports: Sequence[SplitReport]) -> dict[str, Any]:
    """Schema 1."""
    return {
        "schema": 1,
        "dataset": card.name,
        "place": str(root.place),
        "ok": not any(report.problems for report in reports),
        "splits": [
            {
                "split": report.split,
                "images": report.num_images,
                "official_images": report.expected or None,
                "identity": report.identity,
                "fingerprint": report.fingerprint,
                "pixels": report.pixels,
                "ignored_pixels": report.ignored_pixels,
                "ignored_share": report.ignored_share,
                "classes": [
                    {"name": each.name, "pixels": each.pixels, "images": each.images} for each in report.classes
                ],
                "warnings": list(report.warnings),
                "problems": list(report.problems),
            }
            for report in reports
        ],
    }


def print_listing(cards: Sequence[DatasetCard], file: TextIO) -> None:
    """Print the datasets, and where each is found."""
    rows = []
    for card in cards:
        numbers = (f"{split.count:,}" if split.count else "-" for split in card.splits.values())
        place = _place(card)
        rows.append(
            (card.name, card.title, str(card.table.num_classes), *numbers, str(place) if place else "not found")
        )
    caption = "set LUMA_DATA, or [data] root in luma.toml, or give --root to the commands that read a dataset"
    headings = ("dataset", "title~", "classes>", "train>", "val>", "place~")
    print_table(Table(columns(*headings), tuple(rows), caption=caption), file)


def listing_json(cards: Sequence[DatasetCard]) -> dict[str, Any]:
    """Schema 1."""
    return {"schema": 1, "datasets": [_listed(card) for card in cards]}


def _listed(card: DatasetCard) -> dict[str, Any]:
    place = _place(card)
    return {
        "dataset": card.name,
        "title": card.title,
        "licence": card.licence,
        "sources": list(card.sources),
        "archives": list(card.archives),
        "classes": list(card.table.names),
        "images": {name: split.count or None for name, split in card.splits.items()},
        "place": str(place) if place else None,
    }


def _place(card: DatasetCard) -> Path | None:
    try:
        return find_root(card).place
    except DataError:
        return None
