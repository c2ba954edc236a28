"""`luma data`: which datasets luma knows, where they are, whether they are sound, and drawn ones to try."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperCommand

from luma_cli.cli.options import Json
from luma_cli.errors import DataError, UsageError

app = typer.Typer(help="Datasets: find, check, draw.", no_args_is_help=True, add_completion=False)


class SplitName(StrEnum):
    """Parts of a dataset."""

    train = "train"
    val = "val"


def complete_dataset(incomplete: str) -> list[str]:
    """Names of shipped datasets that start with what was typed."""
    from luma_cli.catalogue.datasets import card_names

    return [name for name in card_names() if name.startswith(incomplete)]


class SeveralSplits(TyperCommand):
    """Command class that accepts both splits after one `--split`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args` with the option repeated before the second name."""
        repeated = list(args[:2])
        for before, name in zip(args[1:], args[2:], strict=False):
            both = before in (*SplitName,) and name in (*SplitName,) and repeated[-2:-1] == ["--split"]
            repeated += ["--split", name] if both else [name]
        return super().parse_args(ctx, repeated)


Dataset = Annotated[
    str, Argument(help="ade20k, cityscapes or a TOML file of your own.", autocompletion=complete_dataset)
]
RootFolder = Annotated[
    Path | None,
    Option("--root", help="Folder with the archives or the extracted files. \\[default: $LUMA_DATA or luma.toml]"),
]


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the shipped datasets and where they are found: in $LUMA_DATA or the places that luma.toml names."""
    from luma_cli.catalogue.datasets import card_names, load_card
    from luma_cli.report.dataset import print_listing

    print_listing([load_card(name) for name in card_names()], sys.stdout, as_json)


@app.command(cls=SeveralSplits)
def check(
    dataset: Dataset,
    root: RootFolder = None,
    split: Annotated[list[SplitName] | None, Option(help="One or both; both unless given.")] = None,
    workers: Annotated[int | None, Option(min=1, help="Processes; one for each core unless given.")] = None,
    as_json: Json = False,
) -> None:
    """Read every file: number of images, pairs, sizes, label values, how often each class occurs.

    Exit code 1 when something is wrong; every bad file is named.
    """
    from luma_cli.catalogue.datasets import load_card
    from luma_cli.data.check import check_pairs, usable_cores
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
    print_check(card, found, reports, sys.stdout, as_json)
    if number := sum(len(report.problems) for report in reports):
        raise DataError(f"{number:,} problem{'' if number == 1 else 's'} in {card.name} at {found.place}, named above")


@app.command()
def sample(
    dataset: Dataset,
    folder: Annotated[Path, Argument(help="New folder.")],
    number: Annotated[int, Option("--n", help="Images, a fifth of them for validation.")] = 64,
    seed: Annotated[int, Option(help="Another number draws other images.")] = 0,
) -> None:
    """Draw a small dataset in the layout of an official one, as folders and archives, to try luma without downloads."""
    from luma_cli.data.drawn import write_sample

    if seed < 0:
        raise UsageError(f"--seed is {seed}, expected 0 or more")
    drawn = write_sample(dataset, folder, number, seed)
    typer.echo(f"drew {drawn.num_train} images to train on and {drawn.num_val} to validate on: {drawn.folder}")
    print(f"luma: next: luma data check {dataset} --root {drawn.folder}", file=sys.stderr)
