"""`luma data list` and `luma data check`: datasets and what is in them, as tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from luma_cli.catalogue.datasets import DatasetCard
from luma_cli.data.check import SplitReport
from luma_cli.data.source import Root, find_root, shown
from luma_cli.errors import DataError
from luma_cli.report.table import Table, columns, print_json, print_table


def print_check(
    card: DatasetCard, root: Root, reports: Sequence[SplitReport], file: TextIO, as_json: bool = False
) -> None:
    """Print the share of each class in each split, then warnings and problems, one a line; or JSON, schema 1."""
    if as_json:
        ok = not any(report.problems for report in reports)
        print_json({"schema": 1, "dataset": card.name, "place": root.place, "ok": ok, "splits": reports}, file)
        return
    headings = [f"{report.split} {what}>" for report in reports for what in ("images", "pixels %")]
    rows = [
        (each.name, *(cell for report in reports for cell in _cells(report, index)))
        for index, each in enumerate(card.table.classes)
    ]
    rows.append(("(ignored)", *(cell for report in reports for cell in ("", f"{report.ignored_share:.3%}"[:-1]))))
    found = "; ".join(f"{report.split} {report.num_images:,} images, {report.identity}" for report in reports)
    title = f"{card.title} at {shown(str(root.place))}: {found}"
    print_table(Table(columns("class~", *headings), tuple(rows), title=title), file)
    for report in reports:
        for kind, texts in (("note", report.warnings), ("problem", report.problems)):
            for text in texts:
                print(f"# {report.split}: {kind}: {' '.join(text.split())}", file=file)


def _cells(report: SplitReport, index: int) -> tuple[str, str]:
    each = report.classes[index]
    return f"{each.images:,}", f"{each.pixels / report.pixels if report.pixels else 0:.3%}"[:-1]


def print_listing(cards: Sequence[DatasetCard], file: TextIO, as_json: bool = False) -> None:
    """Print the datasets and their folders; or JSON, schema 1."""
    places = [_place(card) for card in cards]
    if as_json:
        listed = [_listed(card, place) for card, place in zip(cards, places, strict=True)]
        print_json({"schema": 1, "datasets": listed}, file)
        return
    rows = []
    for card, place in zip(cards, places, strict=True):
        numbers = (f"{split.count:,}" if split.count else "-" for split in card.splits.values())
        rows.append((card.name, card.title, str(card.table.num_classes), *numbers, str(place or "not found")))
    caption = "where to look: $LUMA_DATA, [data] root in luma.toml, or --root of the commands that read a dataset"
    headings = ("dataset", "title~", "classes>", "train>", "val>", "place~")
    print_table(Table(columns(*headings), tuple(rows), caption=caption), file)


def _listed(card: DatasetCard, place: Path | None) -> dict[str, Any]:
    return {
        "dataset": card.name,
        **{name: getattr(card, name) for name in ("title", "licence", "sources", "archives")},
        "classes": card.table.names,
        "images": {name: split.count or None for name, split in card.splits.items()},
        "place": place,
    }


def _place(card: DatasetCard) -> Path | None:
    try:
        return find_root(card).place
    except DataError:
        return None
