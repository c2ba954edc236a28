"""`luma data`: list and check datasets, and draw small ones to try luma with."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from luma_cli.cli.options import Json, ManyValued
from luma_cli.errors import DataError, UsageError

app = typer.Typer(help="Datasets: list, check, sample.", no_args_is_help=True, add_completion=False)


class SplitName(StrEnum):
    """Parts of a dataset; Typer takes no list of a Literal."""

    train = "train"
    val = "val"
    test = "test"


def complete_dataset(incomplete: str) -> list[str]:
    """Names of shipped datasets that start with the typed text."""
    from luma_cli.catalogue.datasets import card_names

    return [name for name in card_names() if name.startswith(incomplete)]


Dataset = Annotated[
    str, Argument(help="ade20k, cityscapes or a TOML file of your own.", autocompletion=complete_dataset)
]
RootFolder = Annotated[
    Path | None,
    Option("--root", help="Folder with the archives or the extracted files. \\[default: $LUMA_DATA or luma.toml]"),
]


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the shipped datasets and their folders."""
    from luma_cli.catalogue.datasets import card_names, load_card
    from luma_cli.report.dataset import print_listing

    print_listing([load_card(name) for name in card_names()], sys.stdout, as_json)


@app.command(cls=ManyValued)
def check(
    dataset: Dataset,
    root: RootFolder = None,
    split: Annotated[list[SplitName] | None, Option(help="train, val, test or several. \\[default: all]")] = None,
    workers: Annotated[int | None, Option(min=1, help="Processes. \\[default: one for each core]")] = None,
    as_json: Json = False,
) -> None:
    """Check every file of a dataset and count its classes.

    Checked are pairs, sizes and label values. Exit code 1 for a problem; every bad file is named.

    Example: luma data check ade20k --root ~/data
    """
    from luma_cli.catalogue.datasets import load_card
    from luma_cli.data.check import check_pairs, usable_cores, with_shared
    from luma_cli.data.source import find_root
    from luma_cli.data.split import find_pairs
    from luma_cli.report.dataset import print_check
    from luma_cli.report.progress import Countdown

    card = load_card(dataset)
    found = find_root(card, root)
    names = list(dict.fromkeys(each.value for each in split)) if split else list(card.splits)
    pairings = [find_pairs(card, found, name) for name in names]
    count = Countdown(sys.stderr, sum(len(pairing.pairs) for pairing in pairings), done="checked")
    reports = [check_pairs(card, found, pairing, workers or usable_cores(), count) for pairing in pairings]
    reports = with_shared(reports)
    print_check(card, found, reports, sys.stdout, as_json)
    if number := sum(len(report.problems) for report in reports):
        raise DataError(f"{number:,} problem{'' if number == 1 else 's'} in {card.name} at {found.place}, named above")


@app.command()
def sample(
    dataset: Dataset,
    folder: Annotated[Path, Argument(help="New folder.")],
    number: Annotated[int, Option("--n", help="Number of images; a fifth is for validation.")] = 64,
    seed: Annotated[int, Option(help="Seed of the drawing.")] = 0,
    unknown: Annotated[
        bool, Option("--ood", help="Scenes with objects of no class, and masks of them, for luma eval --ood.")
    ] = False,
) -> None:
    """Draw a small dataset, to try luma without downloads.

    Example: luma data sample ade20k /tmp/drawn
    """
    from luma_cli.data.drawn import write_sample

    if seed < 0:
        raise UsageError(f"--seed is {seed}, expected 0 or more")
    drawn = write_sample(dataset, folder, number, seed, unknown=unknown)
    if unknown:
        print(f"drew {drawn.num_val} images with masks of unknown objects: {drawn.folder}")
        print(f"luma: next: luma eval RUN --ood {drawn.folder}", file=sys.stderr)
        return
    print(f"drew {drawn.num_train} images to train on and {drawn.num_val} to validate on: {drawn.folder}")
    print(f"luma: next: luma data check {dataset} --root {drawn.folder}", file=sys.stderr)


@app.command("new")
def new(
    folder: Annotated[Path, Argument(help="Folder with images and their label files.")],
    out: Annotated[Path | None, Option("--out", help="File to write. \\[default: FOLDER/NAME.toml]")] = None,
    force: Annotated[bool, Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the TOML file of a dataset of your own from its folder: splits, suffixes, label values, names.

    Example: luma data new photos
    """
    import re
    import shlex

    from luma_cli import files
    from luma_cli.data.new_card import new_card

    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-_") or "data"
    path = out or folder / f"{name}.toml"
    if path.exists() and not force:
        raise UsageError(f"{path} exists; name another file with --out, or --force to replace it")
    card = new_card(folder)
    files.write_text(path, card.text)
    typer.echo(str(path))
    elsewhere = path.resolve().parent != folder.resolve()
    at = f" --root {shlex.quote(str(folder))}" if elsewhere else ""
    print(f"luma: {card.seen}; next: luma data check {shlex.quote(str(path))}{at}", file=sys.stderr)
