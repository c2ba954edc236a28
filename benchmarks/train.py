"""The ratios of training in one run: loss, loading, training step, evaluation.

    python benchmarks/train.py                    # minutes on a CPU
    python benchmarks/train.py --device cuda --batch 16 --size b --res 512

The step is measured here: luma's own, with its loss, clipping and AdamW, of one ViT under the LUMA head and under the
EoMT head (masked, all of its predictions supervised), taking turns; the ratio is taken within each round, its median
given with a 95% interval. Target: EoMT's step takes at least 1.2 times LUMA's. The others are files of their own:
loss.py (at least 3 times transformers'), loading.py (at least 1.5 times EoMT's way), evaluation.py (at most 1.25 times
forward and upsampling alone).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.segmenter import build
from luma_cli.measure.timing import median, median_interval
from luma_cli.train.config import RunConfig
from luma_cli.train.prepare import made_up_batch, prepare
from luma_cli.train.processes import Processes
from luma_cli.train.step import Trainer

TARGET = 1.2
HEADS: tuple[HeadName, ...] = ("luma", "eomt")
NUM_STEPS = 10_000  # of the schedule; the steps that are timed are its first
FOLDER = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every ratio; 1 when one misses its target, unless the run is a quick one."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    met = _step(options)
    if not options.step_only:
        met &= all([_file(name, options) for name in ("loss.py", "loading.py", "evaluation.py")])
    return 0 if met or options.quick else 1


def _step(options: argparse.Namespace) -> bool:
    trainers = [_trainer(head, options) for head in HEADS]
    batch = made_up_batch(options.batch, options.res, 150)
    seconds: list[list[float]] = [[], []]
    for number in range(options.rounds + 1):
        order = (0, 1) if number % 2 else (1, 0)
        for index in order:
            taken = _seconds(trainers[index], batch, options.device)
            if number:
                seconds[index].append(taken)
    ratios = [slow / fast for fast, slow in zip(*seconds, strict=True)]
    low, high = median_interval(ratios)
    luma, eomt = (1e3 * median(each) for each in seconds)
    what = f"step of vit_{options.size} at {options.res} px, {options.batch} images"
    print(f"{what}: LUMA {luma:.0f} ms, EoMT {eomt:.0f} ms")
    print(f"  ratio {median(ratios):.2f} ({low:.2f}-{high:.2f}), target {TARGET}", flush=True)
    return high >= TARGET


def _trainer(head: HeadName, options: argparse.Namespace) -> Trainer:
    recipe = Recipe(batch=options.batch, steps=NUM_STEPS, epochs=0, dtype="fp32" if options.device == "cpu" else "bf16")
    config = RunConfig(
        f"vit_{options.size}", options.res, HeadConfig(name=head), "ade20k", recipe, "random", micro_batch=options.batch
    )
    segmenter = build(config.backbone, options.res, head=config.head)
    return prepare(config, segmenter, NUM_STEPS, torch.device(options.device), Processes())[0]


def _seconds(trainer: Trainer, batch: object, device: str) -> float:
    start = time.perf_counter()
    trainer.step(batch)  # type: ignore[arg-type]
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _file(name: str, options: argparse.Namespace) -> bool:
    """Run another benchmark; whether it met its target."""
    print(name, flush=True)
    command = [sys.executable, str(FOLDER / name)]
    if name == "loading.py":
        command += ["--rounds", "2", "--pictures", "4"] if options.quick else []
    else:
        command += ["--device", options.device, *(["--quick"] if options.quick else [])]
    return subprocess.run(command, check=False).returncode == 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="s", choices=("s", "b", "l"))
    parser.add_argument("--res", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--step-only", action="store_true", help="leave the other files out")
    parser.add_argument("--quick", action="store_true", help="two rounds, to see that it runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.res, options.batch = 2, 64, 2
    return options


if __name__ == "__main__":
    sys.exit(main())
