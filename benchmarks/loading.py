"""Loading of training images beside EoMT's way, in turns: `python benchmarks/loading.py [--pictures N] [--rounds N]`.

Both start from the same JPEG and PNG bytes in memory and end with a batch; one thread, CPU seconds, as images per
second and core. EoMT's way (arXiv 2503.19108, github.com/tue-mps/eomt): one binary mask per class, then torchvision's
v2 classes on the whole image and all masks. Pictures are drawn, of ADE20K's usual 683 x 512 pixels in the median;
the right half of each has classes of its own, so that there are about ten, as on ADE20K's images. The ratio of seconds,
EoMT's over luma's, is the median of the rounds with its 95% interval. Luma's memory setting for loading processes
serves both.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from luma_cli.catalogue.datasets import Labels, LabelTable, load_card
from luma_cli.catalogue.recipes import Augmentation
from luma_cli.data.decode import decode_image, decode_labels, keep_freed_memory
from luma_cli.data.drawn import write_sample
from luma_cli.data.loader import TrainingSet

Z_95 = 1.959964
SHORT_SIDE = 490  # drawn pictures have 0.85 to 1.25 of it
OTHER_HALF = 60  # added to label values of the right half
GOAL = 1.5


@dataclass(frozen=True)
class Encoded:
    """Pictures and label files as bytes in memory, as `Samples`."""

    table: LabelTable
    files: tuple[tuple[bytes, bytes], ...]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Its number."""
        return str(index)

    def image(self, index: int) -> NDArray[np.uint8]:
        """RGB [H, W, 3]."""
        return decode_image(self.files[index][0], self.name(index)).pixels

    def labels(self, index: int) -> Labels:
        """Class indices [H, W]."""
        return self.table.encode(decode_labels(self.files[index][1], self.name(index), self.table))


class EomtTransforms:
    """Colour, flip, scale jitter, padding, crop with numbers from PyTorch's global generator."""

    def __init__(self, resolution: int) -> None:
        ranges = Augmentation()
        self.resolution = resolution
        self.brightness = v2.RandomApply([v2.ColorJitter(brightness=ranges.brightness)])
        self.contrast = v2.RandomApply([v2.ColorJitter(contrast=ranges.contrast)])
        self.saturation_and_hue = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(saturation=ranges.saturation)]),
                v2.RandomApply([v2.ColorJitter(hue=ranges.hue)]),
            ]
        )
        self.flip = v2.RandomHorizontalFlip()
        self.scale = v2.ScaleJitter((resolution, resolution), (ranges.scale_min, ranges.scale_max))
        self.crop = v2.RandomCrop(resolution)

    def __call__(self, image: Any, masks: Any) -> tuple[Any, Any]:
        """Image [3, H, W] and masks [M, H, W] -> [3, R, R] and those masks [m, R, R] that have a pixel left."""
        changed = self.colours(image)
        changed, left = self.flip(changed, masks)
        changed, left = self.scale(changed, left)
        padding = [0, 0, *(max(0, self.resolution - side) for side in (changed.shape[-1], changed.shape[-2]))]
        changed, left = self.crop(functional.pad(changed, padding), functional.pad(left, padding))
        present = left.flatten(1).any(1)
        return (changed, left[present]) if present.any() else self(image, masks)

    def colours(self, image: Any) -> Any:
        """With contrast before or after saturation and hue."""
        image = self.brightness(image)
        if torch.rand(()) < 0.5:
            return self.saturation_and_hue(self.contrast(image))
        return self.contrast(self.saturation_and_hue(image))


def eomt_item(files: tuple[bytes, bytes], transforms: EomtTransforms) -> tuple[Tensor, dict[str, Tensor]]:
    """An image [3, R, R] with masks and classes of what is on it."""
    image = tv_tensors.Image(Image.open(io.BytesIO(files[0])).convert("RGB"))
    values = tv_tensors.Mask(Image.open(io.BytesIO(files[1])))[0]
    classes = [value for value in values.unique() if value != 0]
    masks = tv_tensors.Mask(torch.stack([values == value for value in classes]))
    image, masks = transforms(image, masks)
    return image, {"masks": masks, "labels": torch.tensor([int(value) - 1 for value in classes])}


def main() -> int:
    """Print one JSON line; 1 when luma is not as much faster as it should be."""
    options = _options()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    samples = _drawn(options.pictures)
    training_set = TrainingSet(samples, options.resolution, Augmentation(), seed=0)
    transforms = EomtTransforms(options.resolution)

    def luma(epoch: int) -> object:
        items = [training_set[epoch, index] for index in range(len(samples))]
        return torch.stack([item.image for item in items]), torch.stack([item.labels for item in items])

    def eomt(_: int) -> object:
        items = [eomt_item(files, transforms) for files in samples.files]
        return torch.stack([image for image, _ in items]), [target for _, target in items]

    row = _compare(eomt, luma, options.rounds, len(samples))
    print(json.dumps({"resolution": options.resolution, **_facts(samples), **row}))
    return int(row["ratio"] < GOAL)


def _drawn(number: int) -> Encoded:
    """The training pictures of a drawn dataset, their right halves relabelled."""
    table = load_card("ade20k").table
    with tempfile.TemporaryDirectory() as folder:
        root = write_sample("ade20k", Path(folder) / "drawn", number + number // 4, short_side=SHORT_SIDE).folder
        images = sorted((root / "ADEChallengeData2016" / "images" / "training").iterdir())
        labels = sorted((root / "ADEChallengeData2016" / "annotations" / "training").iterdir())
        pairs = zip(images, labels, strict=True)
        return Encoded(table, tuple((image.read_bytes(), _relabelled(label)) for image, label in pairs))


def _relabelled(file: Path) -> bytes:
    values = np.array(Image.open(file))
    right = values[:, values.shape[1] // 2 :]
    right[right > 0] += OTHER_HALF
    encoded = io.BytesIO()
    Image.fromarray(values).save(encoded, "PNG")
    return encoded.getvalue()


def _facts(samples: Encoded) -> dict[str, float]:
    sizes = [samples.image(index).shape[:2] for index in range(len(samples))]
    classes = [len(np.unique(samples.labels(index))) for index in range(len(samples))]
    return {
        "pictures": len(samples),
        "median_height": statistics.median(size[0] for size in sizes),
        "median_width": statistics.median(size[1] for size in sizes),
        "mean_classes": statistics.mean(classes),
    }


def _compare(eomt: Callable[[int], object], luma: Callable[[int], object], rounds: int, number: int) -> dict[str, Any]:
    """CPU seconds of EoMT's way over luma's, in turns, after one round to warm up."""
    ratios, took = [], {eomt: [0.0], luma: [0.0]}
    for index in range(rounds + 1):
        for way in (eomt, luma) if index % 2 else (luma, eomt):
            start = time.process_time()
            way(index)
            took[way].append(time.process_time() - start)
        ratios.append(took[eomt][-1] / took[luma][-1])
    speed = {name: number / statistics.median(took[way][2:]) for name, way in (("eomt", eomt), ("luma", luma))}
    return {
        **_interval(ratios[1:]),
        "eomt_images_per_second_and_core": speed["eomt"],
        "luma_images_per_second_and_core": speed["luma"],
    }


def _interval(ratios: Sequence[float]) -> dict[str, float]:
    ordered, half = sorted(ratios), Z_95 * len(ratios) ** 0.5 / 2
    low, high = max(0, int(len(ratios) / 2 - half)), min(len(ratios) - 1, int(len(ratios) / 2 + half))
    return {"ratio": statistics.median(ordered), "ci_low": ordered[low], "ci_high": ordered[high]}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
