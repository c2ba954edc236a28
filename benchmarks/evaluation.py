"""Evaluation per image beside forward and upsampling alone, in one run.

    python benchmarks/evaluation.py                              # test_vit at 256 and ViT-S at 512, minutes on a CPU
    python benchmarks/evaluation.py --device cuda --batch 8 --dtype bf16

Images are drawn and written as JPEG and PNG files. Evaluation: files read and decoded, resized, cut, normalised,
forward, class scores, resized to the image, argmax, confusion matrix, boundary IoU. Alone: the same windows, normalised
and on the device already; forward, class scores of whole windows, overlaps averaged, `interpolate` to the image. Both
go over all images, taking turns in an order that turns; the ratio is taken within each round. Target: at most 1.25.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from luma_cli.catalogue.datasets import load_card
from luma_cli.data.decode import keep_freed_memory
from luma_cli.data.drawn import write_sample
from luma_cli.data.source import find_root
from luma_cli.data.split import Split, open_split
from luma_cli.evaluate.evaluation import EvalSettings, evaluate
from luma_cli.evaluate.inference import View, autocast_dtype, inference, look_at, normalise, torch_device
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure.timing import median, median_interval

TARGET = 1.25


@dataclass(frozen=True, slots=True)
class Alone:
    """An image whose windows [n, 3, R, R] wait on the device."""

    view: View
    windows: Tensor


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per model; 1 when a ratio misses the target, unless the run is a quick one."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    device = torch_device(options.device)
    dtype = autocast_dtype(options.dtype, device)
    met = True
    for name, side in options.models:
        with tempfile.TemporaryDirectory() as folder:
            split = _drawn(Path(folder) / "ade", options.images, side)
            segmenter = build(name, side, device=device)
            met &= _compare(segmenter, split, side, dtype, options)
    return 0 if met or options.quick else 1


def _drawn(folder: Path, num_images: int, side: int) -> Split:
    """Images with short sides around `side`, in the layout of ADE20K."""
    write_sample("ade20k", folder, num_images + 1, short_side=side)
    card = load_card("ade20k")
    return open_split(card, find_root(card, folder), "train")


def _compare(segmenter: Segmenter, split: Split, side: int, dtype: torch.dtype, options: argparse.Namespace) -> bool:
    waiting = [_wait(segmenter, split, index, side) for index in range(len(split))]
    plain = EvalSettings(side, batch=options.batch)
    bounded = EvalSettings(side, batch=options.batch, boundary=True)
    calls: dict[str, Callable[[], object]] = {
        "alone": lambda: _alone(segmenter, waiting, dtype),
        "evaluation": lambda: evaluate(segmenter, split, plain, dtype=dtype, num_workers=options.workers),
        "with boundary IoU": lambda: evaluate(segmenter, split, bounded, dtype=dtype, num_workers=options.workers),
    }
    seconds = _rounds(calls, options.rounds)
    per_image = {name: 1e3 * median(taken) / len(split) for name, taken in seconds.items()}
    windows = sum(len(each.windows) for each in waiting) / len(waiting)
    print(f"{segmenter.backbone.spec.name} at {side} px, {len(split)} images, {windows:.2f} windows per image")
    print(f"  {'alone':20} {per_image['alone']:8.1f} ms per image")
    met = True
    for name in ("evaluation", "with boundary IoU"):
        ratios = [ours / theirs for ours, theirs in zip(seconds[name], seconds["alone"], strict=True)]
        low, high = median_interval(ratios)
        met &= low <= TARGET
        verdict = "" if low <= TARGET else f"  missed: target {TARGET}"
        print(f"  {name:20} {per_image[name]:8.1f} ms, ratio {median(ratios):.2f} ({low:.2f}-{high:.2f}){verdict}")
    return met


def _wait(segmenter: Segmenter, split: Split, index: int, side: int) -> Alone:
    (view,) = look_at(split.image(index), side)
    device = next(segmenter.parameters()).device
    return Alone(view, normalise(torch.from_numpy(view.windows).to(device), segmenter.backbone.normalisation))


def _alone(segmenter: Segmenter, images: Sequence[Alone], dtype: torch.dtype) -> None:
    """Scores of every image at its own size, every array whole."""
    with inference(segmenter):
        for image in images:
            plan = image.view.plan
            with torch.autocast(image.windows.device.type, dtype, enabled=dtype != torch.float32):
                class_logits, mask_logits = segmenter(image.windows)
            masks = interpolate(mask_logits.float(), (plan.side, plan.side), mode="bilinear")
            scores = torch.einsum("nkhw,nkc->nchw", masks.sigmoid(), class_logits.float().softmax(-1)[..., :-1])
            total = scores.new_zeros(scores.shape[1], plan.resized_height, plan.resized_width)
            count = torch.zeros_like(total[:1])
            for window, (top, left) in zip(scores, plan.corners, strict=True):
                place = (slice(None), slice(top, top + plan.side), slice(left, left + plan.side))
                total[place] += window
                count[place] += 1
            interpolate((total / count)[None], (plan.height, plan.width), mode="bilinear")


def _rounds(calls: dict[str, Callable[[], object]], number: int) -> dict[str, list[float]]:
    """Seconds of every call in every round, after one round to warm up; who starts turns from round to round."""
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(number + 1):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            _synchronize()
            start = time.perf_counter()
            calls[name]()
            _synchronize()
            if index:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _model(text: str) -> tuple[str, int]:
    name, _, side = text.partition("@")
    return name, int(side)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=_model, default=[("test_vit", 256), ("vit_s", 512)])
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="test_vit at 64 in two rounds, to see that it runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.models, options.images, options.rounds = [("test_vit", 64)], 3, 2
    return options


if __name__ == "__main__":
    sys.exit(main())
