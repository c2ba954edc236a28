"""Make or check `profiles/costs.csv`: `python -m luma_cli.measure.cost_table [--check]`.

One row per architecture that a card chooses and per resolution; a size that a backbone refuses has no row.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from luma_cli import files
from luma_cli.catalogue.cards import load_cards
from luma_cli.catalogue.costs import BackboneFacts, costs_path
from luma_cli.catalogue.names import resolve
from luma_cli.measure.count_request import CountRequest, Refusal
from luma_cli.measure.count_worker import answer

RESOLUTIONS = (224, 384, 512, 640, 768, 1024)
NUM_WORKERS = 2
_NOT_AT_THIS_SIZE = "BadResolution"


def architectures() -> list[str]:
    """Every timm architecture that a shipped card chooses, for a size or for one of its pretrainings, sorted."""
    sizes = (size for card in load_cards().values() if not card.registered for size in card.sizes.values())
    return sorted({architecture for size in sizes for architecture in size.chosen})


def table_text(rows: Iterable[BackboneFacts]) -> str:
    """The table as CSV, sorted by architecture and resolution, so that equal facts give equal bytes."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, [field.name for field in fields(BackboneFacts)], lineterminator="\n")
    writer.writeheader()
    for facts in sorted(rows, key=lambda facts: (facts.architecture, facts.resolution)):
        values = asdict(facts)
        writer.writerow(
            {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}
        )
    return out.getvalue()


def count_architecture(architecture: str) -> list[BackboneFacts | Refusal]:
    """Facts of one architecture at every resolution that it takes; refusals for any other reason stay in."""
    spec = resolve(architecture)
    answers = [answer(CountRequest(spec, resolution)) for resolution in RESOLUTIONS]
    return [found for found in answers if isinstance(found, BackboneFacts) or found.kind != _NOT_AT_THIS_SIZE]


def count_all(names: Sequence[str], num_workers: int = NUM_WORKERS) -> dict[str, list[BackboneFacts | Refusal]]:
    """Facts of every architecture in `names`, counted by fresh processes of one thread each."""
    with ProcessPoolExecutor(num_workers, get_context("spawn"), initializer=_one_thread) as pool:
        return dict(zip(names, pool.map(count_architecture, names, chunksize=1), strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, or with `--check` say whether the one at hand is current; 1 when it is not or a count failed."""
    options = _parser().parse_args(arguments)
    found = count_all(architectures())
    failed = _failures(found)
    for line in failed:
        print(line, file=sys.stderr)
    if failed:
        return 1
    text = table_text(facts for answers in found.values() for facts in answers if isinstance(facts, BackboneFacts))
    if not options.check:
        files.write_text(options.out, text)
        print(f"{options.out}: {text.count(chr(10)) - 1} rows, timm {version('timm')}", file=sys.stderr)
        return 0
    current = options.out.is_file() and options.out.read_text(encoding="utf-8") == text
    print(f"{options.out} is {'current' if current else 'not current; run make costs'}", file=sys.stderr)
    return 0 if current else 1


def _failures(found: Mapping[str, Sequence[BackboneFacts | Refusal]]) -> list[str]:
    """A line for every architecture that could not be counted, or fits no resolution at all."""
    refused = [
        f"{name}: {item.message}" for name, items in found.items() for item in items if isinstance(item, Refusal)
    ]
    return refused + [f"{name}: fits none of {RESOLUTIONS}" for name, items in found.items() if not items]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m luma_cli.measure.cost_table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--out", type=Path, default=costs_path(), help="the table's file")
    return parser


def _one_thread() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
