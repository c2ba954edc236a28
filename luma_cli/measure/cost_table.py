"""Make or check `profiles/costs.csv`: `python -m luma_cli.measure.cost_table [--check]`.

One row per architecture that a card chooses and per resolution; a size that a backbone refuses has no row.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path

from luma_cli import files
from luma_cli.catalogue.cards import load_cards
from luma_cli.catalogue.costs import BackboneFacts, costs_path
from luma_cli.catalogue.names import resolve
from luma_cli.measure.cost import NUM_COUNTING, CountJob, count_in_process

RESOLUTIONS = (224, 384, 512, 640, 768, 1024)


def architectures() -> list[str]:
    """Every timm architecture that a shipped card chooses, sorted."""
    sizes = (size for card in load_cards().values() if not card.registered for size in card.sizes.values())
    return sorted({architecture for size in sizes for architecture in size.chosen})


def table_text(rows: Iterable[BackboneFacts]) -> str:
    """The table as CSV, sorted, so that equal facts give equal bytes."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, [field.name for field in fields(BackboneFacts)], lineterminator="\n")
    writer.writeheader()
    for facts in sorted(rows, key=lambda facts: (facts.architecture, facts.resolution)):
        values = asdict(facts)
        writer.writerow(
            {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}
        )
    return out.getvalue()


def count_all(names: Sequence[str]) -> tuple[list[BackboneFacts], list[str]]:
    """Facts of every architecture at every resolution that it supports, and a line for every failure.

    A refused size is no failure, unless all are refused.
    """
    jobs = [CountJob(resolve(name), resolution) for name in names for resolution in RESOLUTIONS]
    rows, failed = [], []
    for job, answer in zip(jobs, count_in_process(jobs, num_workers=NUM_COUNTING), strict=True):
        if isinstance(answer, BackboneFacts):
            rows.append(answer)
        elif answer.kind != "BadResolution":
            failed.append(f"{job.spec.architecture}: {answer.message}")
    known = {facts.architecture for facts in rows} | {line.partition(":")[0] for line in failed}
    return rows, failed + [f"{name}: fits none of {RESOLUTIONS}" for name in names if name not in known]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, or check it with `--check`; 1 when it is not current or a count failed."""
    parser = argparse.ArgumentParser(prog="python -m luma_cli.measure.cost_table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--out", type=Path, default=costs_path(), help="the table's file")
    options = parser.parse_args(arguments)
    rows, failed = count_all(architectures())
    if failed:
        print("\n".join(failed), file=sys.stderr)
        return 1
    text = table_text(rows)
    if not options.check:
        files.write_text(options.out, text)
        print(f"{options.out}: {len(rows)} rows, timm {version('timm')}", file=sys.stderr)
        return 0
    current = options.out.is_file() and options.out.read_text(encoding="utf-8") == text
    print(f"{options.out} is {'current' if current else 'not current; run make costs'}", file=sys.stderr)
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
