"""Imports the transcribed table of published results into `profiles/reference/`.

    python -m luma_cli.evidence.reference TABLE.csv FLAGS.csv \
        profiles/reference/corrections.csv profiles/reference/segmentation_results.csv

TABLE is the transcription, FLAGS the list of suspicions about its rows. Every suspicion is handled by kind: exact
duplicates are dropped, doubtful figures kept and marked, the rest noted beside the row. What looking into them showed
is kept as data in the corrections and applied last.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from luma_cli.catalogue.pretraining import objective_of
from luma_cli.catalogue.timm_index import TimmIndex, load_index
from luma_cli.errors import BadCard
from luma_cli.evidence import cleaning
from luma_cli.evidence.evidence import COLUMNS, Eval, Evidence, of_row, to_row

Flags = Mapping[int, Sequence[tuple[str, str]]]

RAW_COLUMNS = (
    *("dataset", "split", "backbone", "family", "pretraining", "pretraining_data", "resolution", "eval", "head"),
    *("miou", "params_m", "gflops", "fps", "hardware", "precision", "source", "url", "backbone_as_published"),
    *("params_scope", "flops_input", "schedule", "train_mem_gb", "notes", "in_timm"),
)
# Suspicions about other columns, kept beside the row. The rest is benign: near duplicates, extremes, odd sizes.
_REMARKS = {
    "gflops outlier for params and head": "published GFLOPs are {detail} of what parameters and head suggest",
    "params < timm backbone": "published parameters are below those of the {detail} M",
    "params conflict within backbone+head": "published parameters of this backbone and head differ: {detail}",
    "conflicting duplicate, same or unknown schedule": "published more than once: {detail} mIoU",
    "pretraining data missing": "pretraining data not stated",
}


def read_flags(path: Path) -> dict[int, list[tuple[str, str]]]:
    """Suspicions by row of the table, zero-based, as (kind, detail)."""
    flags: dict[int, list[tuple[str, str]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            flags[int(row["row"])].append((row["kind"], row["detail"]))
    return dict(flags)


def clean(
    rows: Sequence[Mapping[str, str]], flags: Flags, index: TimmIndex, corrections: Sequence[Correction] = ()
) -> list[Evidence]:
    """The table in our schema, exact duplicates merged into the fuller of each pair, then corrected.

    `index` is installed timm's. Raises BadCard for a correction that does not fit.
    """
    merged = _duplicates(rows, flags)
    dropped = {index for group in merged.values() for index in group}
    also = {kept: "; ".join(rows[index]["source"] for index in group) for kept, group in merged.items()}
    cleaned = [
        cleaned_row(f"ref-{number:04d}", row, index, flags.get(number, ()), also.get(number, ""))
        for number, row in enumerate(rows)
        if number not in dropped
    ]
    return correct(cleaned, corrections)


def _duplicates(rows: Sequence[Mapping[str, str]], flags: Flags) -> dict[int, list[int]]:
    """Row that stays -> rows that say exactly the same; the flag's detail names the whole group."""
    groups = {
        tuple(json.loads(detail.removeprefix("rows ").split("]")[0] + "]"))
        for found in flags.values()
        for kind, detail in found
        if kind == "exact duplicate"
    }

    def worth(index: int) -> tuple[bool, int, int]:
        row = rows[index]
        return cleaning.trust(row["notes"], row["source"]) == "primary", sum(map(bool, row.values())), -index

    kept = {max(group, key=worth): group for group in groups}
    return {best: [index for index in group if index != best] for best, group in kept.items()}


def cleaned_row(
    id: str, row: Mapping[str, str], index: TimmIndex, flags: Sequence[tuple[str, str]] = (), also: str = ""
) -> Evidence:
    """One row of the transcription in our schema. also: other sources that say the same.

    The objective of known weights is what the cards say; otherwise what the printed words plainly mean. What published
    papers call FLOPs is only known where a note says so. Raises ValueError for a size or number that does not parse.
    """
    height, width = cleaning.resolution(row["resolution"])
    head = cleaning.head(row["head"], row["notes"])
    timm, architecture, in_timm = cleaning.timm_name(row["backbone"], index.has)
    data = row["pretraining_data"]
    if any(kind == "IN-21k called IN-22k" for kind, _ in flags):
        data = data.replace("ImageNet-22k", "ImageNet-21k")
    known = objective_of(timm if in_timm == "tag" else "")
    flops_unit = "macs" if "holds published MACs" in row["notes"] else "as published"
    return Evidence(
        id=id,
        provenance="published LUMA" if head.name == "luma" else "other head",
        trust=cleaning.trust(row["notes"], row["source"]),
        dataset=row["dataset"],
        split=row["split"],
        head=head.name,
        regime=head.regime,
        eval=cast(Eval, row["eval"]),
        backbone=row["backbone"],
        miou_percent=float(row["miou"]),
        height=height,
        width=width,
        recipe=head.recipe,
        schedule=cleaning.schedule(row["schedule"]),
        pretraining=known or cleaning.objective(row["pretraining"], data, row["backbone"]),
        pretraining_raw=row["pretraining"],
        pretraining_data=data,
        extra_data=cleaning.extra_data(row["pretraining"], data),
        family=row["family"],
        timm=timm,
        architecture=architecture,
        in_timm=in_timm,
        params_m=float(row["params_m"]) if row["params_m"] else None,
        params_scope=row["params_scope"],
        gflops_published=float(row["gflops"]) if row["gflops"] else None,
        flops_unit=flops_unit if row["gflops"] else "",
        head_raw=row["head"],
        source=row["source"],
        url=row["url"],
        doubtful=_doubt(flags),
        remarks="; ".join(_REMARKS[kind].format(detail=_figures(detail)) for kind, detail in flags if kind in _REMARKS),
        notes="; ".join(filter(None, (row["notes"], f"also published in: {also}" if also else ""))),
    )


def _doubt(flags: Sequence[tuple[str, str]]) -> str:
    """Why the accuracy itself is doubtful, empty when it is not."""
    expected = [detail.split()[1] for kind, detail in flags if kind.startswith("outlier")]
    return f"a fit on the other rows expects {expected[0]} mIoU" if expected else ""


def _figures(detail: str) -> str:
    """The figures of a detail that lists rows, `rows [1, 2] mIoU [48.1, 48.6] src [...]`; any other as it is."""
    listed = re.search(r"mIoU \[([^\]]*)\]", detail)
    return listed[1] if listed else detail


def write(path: Path, evidence: Sequence[Evidence]) -> None:
    """Writes the cleaned table, one row per piece of evidence, with a header and Unix line ends."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(to_row(row) for row in evidence)


FIELDS = ("id", "column", "old", "new", "reason")


@dataclass(frozen=True, slots=True)
class Correction:
    """One column of one row, as it was transcribed and as it should be, and how we know."""

    id: str
    column: str
    old: str
    new: str
    reason: str

    @property
    def drops(self) -> bool:
        """Whether the row is taken out altogether."""
        return self.column == "id" and not self.new


def read_corrections(path: Path) -> list[Correction]:
    """Every correction, a line each; column `id` with an empty `new` drops the row.

    `old` is the text before, so that a correction which no longer applies is noticed. Raises BadCard, naming file and
    line, for an unknown column or a missing reason.
    """
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise BadCard(f"{path}: columns are {reader.fieldnames}, expected {list(FIELDS)}")
        for row in reader:
            where, each = f"{path}, line {reader.line_num}", Correction(**{name: row[name] or "" for name in FIELDS})
            if each.column not in COLUMNS:
                raise BadCard(f"{where}: column {each.column!r} is none of {list(COLUMNS)}")
            if not each.reason:
                raise BadCard(f"{where}: {each.id} has no reason; say how it is known")
            found.append(each)
    return found


def correct(evidence: Sequence[Evidence], corrections: Iterable[Correction]) -> list[Evidence]:
    """The rows with every correction applied, in the same order.

    Raises BadCard for a correction of a row that is not there or whose column does not hold `old`.
    """
    wanted: dict[str, list[Correction]] = defaultdict(list)
    for correction in corrections:
        wanted[correction.id].append(correction)
    if unknown := sorted(wanted.keys() - {row.id for row in evidence}):
        raise BadCard(f"corrections name rows that are not there: {', '.join(unknown)}")
    kept = (_corrected(row, wanted[row.id]) if row.id in wanted else row for row in evidence)
    return [row for row in kept if row is not None]


def _corrected(row: Evidence, corrections: Sequence[Correction]) -> Evidence | None:
    texts = to_row(row)
    for correction in corrections:
        if correction.drops:
            return None
        if texts[correction.column] != correction.old:
            raise BadCard(
                f"{row.id}: {correction.column} is {texts[correction.column]!r}, the correction expects "
                f"{correction.old!r}; look at it again"
            )
        texts[correction.column] = correction.new
    return of_row(f"correction of {row.id}", texts)


def main(arguments: Sequence[str]) -> int:
    """Imports the table named on the command line; prints what was kept, merged and doubted to stderr."""
    if len(arguments) != 4:
        usage = "usage: python -m luma_cli.evidence.reference TABLE.csv FLAGS.csv CORRECTIONS.csv OUT.csv"
        print(usage, file=sys.stderr)
        return 2
    table, flags, corrections_file, out = map(Path, arguments)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    index, corrections = load_index(), read_corrections(corrections_file)
    evidence = clean(rows, read_flags(flags), index, corrections)
    write(out, evidence)
    left_out, doubtful = len(rows) - len(evidence), sum(bool(row.doubtful) for row in evidence)
    kept = f"{len(rows)} rows read, {left_out} left out, {len(corrections)} corrections, {doubtful} doubtful"
    in_timm = dict(sorted(Counter(row.in_timm for row in evidence).items()))
    print(f"{kept}\nin timm {index.version}: {in_timm}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
