"""LUMA against EoMT, ours and transformers': forward, training step, memory and multiply-adds, in one run.

    python benchmarks/heads.py                                  # ViT-S at 512: minutes on a CPU
    python benchmarks/heads.py --sizes s b l --res 512 1024 --device cuda --write docs/understand/heads_speed.md

All contestants of a size take turns, in an order that turns with every round; a ratio is taken within each round, and
its median is given with a 95% interval. Targets: EoMT's forward takes no less time than LUMA's (the interval reaches
1.0), its training step at least 1.3 times LUMA's, and LUMA's training memory is at most 0.8 of EoMT's.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from head_contestants import SHAPES, Batch, Contestant, contestants, make_batch
from torch import Tensor

from luma_cli import files
from luma_cli.measure.timing import median, median_interval

FORWARD_TARGET, STEP_TARGET, MEMORY_TARGET = 1.0, 1.3, 0.8
RIVALS = ("eomt", "transformers")
ADAMW_TENSORS = 4  # weights, gradients and two moments


@dataclass(frozen=True, slots=True)
class Ratio:
    """A rival's number over LUMA's (memory: LUMA's over the rival's): median with its 95% interval, and the target."""

    what: str
    rival: str
    value: float
    low: float
    high: float
    target: float

    @property
    def met(self) -> bool:
        """Whether the interval reaches the target; memory, which is exact, must not exceed it."""
        return self.value <= self.target if self.what == "memory" else self.high >= self.target

    def __str__(self) -> str:
        interval = "" if self.low == self.high else f" ({self.low:.2f}-{self.high:.2f})"
        return f"{self.value:.2f}{interval}{'' if self.met else ' **missed**'}"


@dataclass(frozen=True, slots=True)
class Row:
    """One size at one resolution: milliseconds and bytes per contestant, multiply-adds per image, ratios."""

    size: str
    resolution: int
    batch: int
    forward_ms: dict[str, float]
    step_ms: dict[str, float]
    training_bytes: dict[str, int]
    gmacs: dict[str, float]
    ratios: tuple[Ratio, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per size as it comes, then the table; 1 when a target is missed, unless the run is a quick one."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    rows = [row for file in options.add for row in read_rows(file)]
    for size in options.sizes:
        for resolution in options.res:
            rows.append(measure(size, resolution, options))
            print(json.dumps(asdict(rows[-1])), file=sys.stderr, flush=True)
    text = markdown(rows, options)
    print(text)
    if options.json:
        files.write_text(options.json, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.write:
        files.write_text(options.write, text)
    return 0 if options.quick or all(ratio.met for row in rows for ratio in row.ratios) else 1


def read_rows(file: Path) -> list[Row]:
    """The rows that an earlier run wrote with `--json`."""
    found = json.loads(file.read_text(encoding="utf-8"))
    return [Row(**{**row, "ratios": tuple(Ratio(**ratio) for ratio in row["ratios"])}) for row in found]


def measure(size: str, resolution: int, options: argparse.Namespace) -> Row:
    """Everything about one size at one resolution."""
    dtype: torch.dtype = getattr(torch, options.dtype)
    group = contestants(SHAPES[size], resolution, options.device)
    batch = make_batch(options.batch, resolution, options.device)
    gmacs = {name: contestant.macs() / 1e9 for name, contestant in group.items()}
    one = batch.images[:1]
    forward = _rounds({name: _inference(contestant, one, dtype) for name, contestant in group.items()}, options.pairs)
    memory, step = {}, {}
    for name, contestant in group.items():
        memory[name] = _training_bytes(contestant, batch, dtype)
    for contestant in group.values():
        contestant.start_training()
    step = _rounds({name: _training(contestant, batch, dtype) for name, contestant in group.items()}, options.pairs)
    for contestant in group.values():
        contestant.stop_training()
    return Row(
        size=size,
        resolution=resolution,
        batch=options.batch,
        forward_ms={name: 1e3 * median(seconds) for name, seconds in forward.items()},
        step_ms={name: 1e3 * median(seconds) for name, seconds in step.items()},
        training_bytes=memory,
        gmacs=gmacs,
        ratios=tuple(_ratios(forward, step, memory)),
    )


def _ratios(forward: dict[str, list[float]], step: dict[str, list[float]], memory: dict[str, int]) -> list[Ratio]:
    found = []
    for rival in RIVALS:
        for what, seconds, target in (("forward", forward, FORWARD_TARGET), ("step", step, STEP_TARGET)):
            pairs = [theirs / ours for theirs, ours in zip(seconds[rival], seconds["luma"], strict=True)]
            found.append(Ratio(what, rival, median(pairs), *median_interval(pairs), target))
        share = memory["luma"] / memory[rival]
        found.append(Ratio("memory", rival, share, share, share, MEMORY_TARGET))
    return found


def _inference(contestant: Contestant, images: Tensor, dtype: torch.dtype) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            return contestant.model(images)

    return call


def _training(contestant: Contestant, batch: Batch, dtype: torch.dtype) -> Callable[[], object]:
    return lambda: contestant.step(batch, dtype)


def _rounds(calls: dict[str, Callable[[], object]], number: int) -> dict[str, list[float]]:
    """Seconds of every call in every round, after one round to warm up; who starts turns from round to round."""
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(number + 1):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            took = _seconds(calls[name])
            if index:
                seconds[name].append(took)
    return seconds


def _seconds(call: Callable[[], object]) -> float:
    _synchronize()
    start = time.perf_counter()
    call()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _training_bytes(contestant: Contestant, batch: Batch, dtype: torch.dtype) -> int:
    """Peak bytes of the second training step, without the other contestants' weights.

    On CUDA the allocator's peak over what was there before, weights added; on the CPU, where nothing counts
    allocations, what is sure to be held at once: weights, gradients, both moments, and all that backward needs.
    """
    weights: int = sum(parameter.numel() * parameter.element_size() for parameter in contestant.model.parameters())
    contestant.start_training()
    try:
        if batch.images.is_cuda:
            return _allocator_peak(contestant, batch, dtype) + weights
        return ADAMW_TENSORS * weights + _saved_bytes(contestant, batch, dtype)
    finally:
        contestant.stop_training()
        gc.collect()


def _allocator_peak(contestant: Contestant, batch: Batch, dtype: torch.dtype) -> int:
    before = torch.cuda.memory_allocated()
    contestant.step(batch, dtype)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    contestant.step(batch, dtype)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _saved_bytes(contestant: Contestant, batch: Batch, dtype: torch.dtype) -> int:
    """Bytes that the forward and the loss keep for the backward pass, parameters apart, every storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in contestant.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = contestant.loss_under(batch, dtype)
    total = sum(kept.values())
    del loss
    return total


def markdown(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """The whole document."""
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor() or "CPU"
    lines = [
        "# Heads: LUMA and EoMT",
        "",
        f"Written by `benchmarks/heads.py` on {device}, {options.threads} threads, {options.dtype}, torch"
        f" {torch.__version__.partition('+')[0]}, transformers {transformers.__version__}; {options.pairs} rounds,"
        " inference batch 1.",
        "DINOv2-shaped ViTs at patch 16, 100 queries, 150 classes. Training: one loss for all (Hungarian matching),"
        " EoMT with L2 + 1 predictions under masked attention; batch: images per training step.",
        "Times and ratios are medians, with 95% intervals.",
        f"Memory of a training step: {_MEMORY[options.device.startswith('cuda')]}.",
        "",
        _TABLE_HEAD,
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        lines += _lines(row)
    return "\n".join([*lines, "", *_verdicts(rows), ""])


_MEMORY = {
    True: "the allocator's peak",
    False: "weights, gradients and AdamW's moments plus all that is kept for the backward pass",
}
_TABLE_HEAD = (
    "| ViT | px | batch | head | GMACs | forward ms | of LUMA's | step ms | of LUMA's | memory GiB | LUMA's share |"
)


def _lines(row: Row) -> list[str]:
    lines = []
    found: dict[tuple[str, str], Any] = {(ratio.what, ratio.rival): ratio for ratio in row.ratios}
    for name in ("luma", *RIVALS):
        cells = [
            f"{row.size.upper()} | {row.resolution} | {row.batch} | {name} | {row.gmacs[name]:.1f}",
            f"{row.forward_ms[name]:.1f} | {found.get(('forward', name), '')}",
            f"{row.step_ms[name]:.1f} | {found.get(('step', name), '')}",
            f"{row.training_bytes[name] / 2**30:.2f} | {found.get(('memory', name), '')}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _verdicts(rows: Sequence[Row]) -> list[str]:
    """One line per target: in how many of the comparisons it is met."""
    targets = {
        "forward": f"EoMT's forward takes no less time than LUMA's (interval reaches {FORWARD_TARGET})",
        "step": f"EoMT's training step takes at least {STEP_TARGET} times LUMA's (interval reaches it)",
        "memory": f"LUMA's training memory is at most {MEMORY_TARGET} of EoMT's",
    }
    lines = []
    for what, sentence in targets.items():
        ratios = [ratio for row in rows for ratio in row.ratios if ratio.what == what]
        met = sum(ratio.met for ratio in ratios)
        lines.append(f"- {sentence}: {'met' if met == len(ratios) else 'missed'}, {met} of {len(ratios)}.")
    return lines


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SHAPES), default=["s"])
    parser.add_argument("--res", nargs="+", type=int, default=[512], help="sides of the images in pixels")
    parser.add_argument("--pairs", type=int, default=7, help="rounds per size")
    parser.add_argument("--batch", type=int, default=2, help="images per training step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: autocast")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--quick", action="store_true", help="a ViT-S at 128 px in three rounds, to see that it runs; not judged"
    )
    parser.add_argument("--json", type=Path, help="file for every number")
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="rows of earlier runs, from their --json files")
    parser.add_argument("--write", type=Path, help="file for the Markdown document")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.res, options.pairs = ["s"], [128], 3
    return options


if __name__ == "__main__":
    sys.exit(main())
