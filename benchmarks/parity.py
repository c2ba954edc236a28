"""luma held against the official EoMT code (https://github.com/tue-mps/eomt): same weights, images and points.

    git clone https://github.com/tue-mps/eomt DIR
    pip install lightning wandb pycocotools torchmetrics "transformers==4.56.1"     # what that code imports
    python benchmarks/parity.py --official DIR [--models S/DINOv2 ...] [--write docs/understand/parity.md]

One line per comparison, with the largest difference; the exit code is 1 when one is above its tolerance. Weights are
random and large enough that nothing is dropped unseen; sizes are the real ones, images small.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from luma_cli import files
from luma_cli.backbone.create import create_backbone
from luma_cli.backbone.timm_model import rescale_rotations
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.recipes import Recipe, load_recipe
from luma_cli.evaluate.inference import predict_labels
from luma_cli.head.eomt import EomtHead, MaskAnnealing
from luma_cli.head.segmenter import Segmenter
from luma_cli.train.criterion import MaskCriterion
from luma_cli.train.foreign import built, read_foreign, renamed
from luma_cli.train.optimiser import create_optimizer, mask_annealing, set_learning_rates
from luma_cli.train.restore import restore

SIDE, QUERIES, CLASSES, STEPS = 64, 20, 150, 20_208
DINOV2 = {"S": ("small", 3), "B": ("base", 3), "L": ("large", 4), "g": ("giant", 5)}
DINOV3 = {"S": ("small", 3, 384, 12, 6), "B": ("base", 3, 768, 12, 12), "L": ("large", 4, 1024, 24, 16)}
MODELS = [*(f"{size}/DINOv2" for size in DINOV2), *(f"{size}/DINOv3" for size in DINOV3)]
ROUNDING = 2e-5  # of logits, relative to the largest: float32 sums of up to 40 blocks in another order
BEGIN, END = "<!-- parity: begin -->", "<!-- parity: end -->"


@dataclass(frozen=True, slots=True)
class Line:
    """A comparison and the largest difference that it found."""

    what: str
    model: str
    difference: float
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        verdict = "equal" if self.equal else "**different**"
        return f"| {self.what} | {self.model} | {self.difference:.2g} | {self.tolerance:g} | {verdict} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when a line is different."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, required=True, help="folder of the official code")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, help="default: all")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args(arguments)
    sys.path[:0] = [str(options.official.absolute()), str(files.root() / "tests")]
    warnings.simplefilter("ignore")
    start, found = time.perf_counter(), []
    for line in _lines(options.official, options.models):
        found.append(line)
        print(line, flush=True)
    command = ["git", "-C", str(options.official), "rev-parse", "--short", "HEAD"]
    revision = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "timm", "transformers"))
    num_different = sum(not line.equal for line in found)
    print(f"{len(found)} lines, {num_different} different; {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if options.write:
        head = "| what | model | largest difference | tolerance | |\n|---|---|---|---|---|\n"
        said = f"Official code at {revision or 'an unknown revision'}; {versions}, CPU."
        text = options.write.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        table = head + "\n".join(map(str, found))
        options.write.write_text(f"{before}{BEGIN}\n{table}\n\n{said}\n{END}{after}", encoding="utf-8")
    return int(num_different > 0)


def _lines(official: Path, models: Sequence[str]) -> Iterator[Line]:
    yield from _annealing(official)
    yield _resampling()
    yield from _loss()
    for model in models:
        theirs, ours = _pair(model)
        yield from _compared(model, theirs, ours)
        del theirs, ours
        gc.collect()


def _pair(model: str) -> tuple[Any, Segmenter]:
    """The official Lightning module of a network with random weights, and the segmenter with the same ones."""
    eomt, vit = _imported("models.eomt").EoMT, _imported("models.vit").ViT
    semantic = _imported("training.mask_classification_semantic").MaskClassificationSemantic
    made = type("Module", (semantic,), {"trainer": SimpleNamespace(estimated_stepping_batches=STEPS)})

    size, _, family = model.partition("/")
    if family == "DINOv2":
        name, joint = f"vit_{DINOV2[size][0]}_patch14_reg4_dinov2", DINOV2[size][1]
        encoder = vit((SIDE, SIDE), backbone_name=name, ckpt_path="none")
    else:
        name, joint = f"vit_{DINOV3[size][0]}_patch16_dinov3_qkvb", DINOV3[size][1]
        encoder = _dinov3(vit, *DINOV3[size][2:])
    network = _redrawn(eomt(encoder, CLASSES, QUERIES, joint))
    dinov3 = family == "DINOv3"
    settings = {"lr": 2e-4, "llrd": 1.0, "lr_mult": 0.1, "warmup_steps": [2000, 3000]} if dinov3 else {}
    module = made(network, (SIDE, SIDE), CLASSES, True, **settings)
    head = HeadConfig(name="eomt", num_queries=QUERIES, num_classes=CLASSES, l2=joint)
    ours = Segmenter(create_backbone(resolve(name, imported=True), SIDE), head)
    ours.load_state_dict(renamed(dict(network.state_dict())), assign=True)  # in the same memory where names are one
    rescale_rotations(ours.backbone.model, _recipe(model).rope_rescale)
    return module.eval(), ours.eval()


def _dinov3(vit: Any, width: int, depth: int, heads: int) -> nn.Module:
    """The official encoder on transformers' DINOv3, with random weights in the place of downloaded ones."""
    transformers = _imported("transformers")
    config = transformers.DINOv3ViTConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth, num_attention_heads=heads,
        num_register_tokens=4, image_size=SIDE,
    )  # fmt: skip
    with _replaced(transformers.AutoModel, "from_pretrained", lambda name: transformers.DINOv3ViTModel(config)):
        encoder: nn.Module = vit((SIDE, SIDE), backbone_name="facebook/any")
    return encoder


def _imported(name: str) -> Any:
    """A module of the official code, or of what it needs: none of them is typed."""
    return import_module(name)


def _recipe(model: str) -> Recipe:
    return load_recipe("eomt-ade20k-dinov3" if model.endswith("DINOv3") else "eomt-ade20k")


def _redrawn(network: nn.Module) -> nn.Module:
    """Parameters that keep the size of what passes: scales 0.5 to 1.5, layer scales small as the blocks are many."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "gamma" in name or "lambda1" in name:
                parameter.uniform_(0.1, 0.3, generator=generator)
            elif parameter.dim() == 1 and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                fan_in = parameter[0].numel() if parameter.dim() > 1 and parameter.shape[0] > 1 else 1
                parameter.normal_(generator=generator).div_(fan_in**0.5)
            if name.startswith("mask_head.4"):  # mask logits of a few units, so that no pixel is decided by rounding
                parameter.mul_(0.1)
    return network


def _compared(model: str, theirs: Any, ours: Segmenter) -> Iterator[Line]:
    generator = torch.Generator().manual_seed(2)
    bytes_ = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=generator)
    norm = ours.backbone.normalisation
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (norm.mean, norm.std))
    images, network = (bytes_ / 255 - mean) / std, theirs.network

    network.masked_attn_enabled = False
    with torch.no_grad():
        masks, classes = theirs(bytes_)
        found = ours(images)
    yield Line("logits, no masks", model, _relative(found, (classes[-1], masks[-1])), ROUNDING)

    network.masked_attn_enabled = True
    theirs.train(), ours.train()
    joint = ours.config.l2
    draws = torch.rand(2, joint, QUERIES, generator=generator)
    for words, chances in (
        ("always", [1.0] * joint),
        ("by chance", [0.0, *[0.5] * (joint - 1)]),
    ):
        with torch.no_grad():
            both = _both(theirs, ours, bytes_, images, chances, draws)
            largest = max(_relative(one, other) for one, other in zip(*both, strict=True))
        yield Line(f"all predictions in training, masked {words}", model, largest, ROUNDING)

    yield Line("gradient of every parameter", model, _gradients(theirs, ours, bytes_, images, draws), 1e-4)
    ours.zero_grad()
    theirs.eval(), ours.eval()
    yield from _rates(model, theirs, ours)

    network.masked_attn_enabled = False
    photos = [_photo(*size, seed) for seed, size in enumerate(((97, 150), (201, 97), (64, 64), (80, 333)))]
    expected = [_official_labels(theirs, photo) for photo in photos]
    labels = [predict_labels(ours, photo) for photo in photos]
    yield Line("pixels of 4 windowed images", model, _pixels(expected, labels), 0)
    if not model.startswith("g"):  # 4.5 GB more
        yield from _round_trip(model, theirs, photos, expected)


def _both(
    theirs: Any, ours: Segmenter, bytes_: Tensor, images: Tensor, chances: list[float], draws: Tensor
) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """(class, mask logits) of every prediction of both, with the same draws of queries and of DINOv3's rotations."""
    theirs.network.attn_mask_probs.copy_(torch.tensor(chances))
    assert isinstance(ours.head, EomtHead)
    ours.head.anneal(chances)
    queue = [draws[:, block] for block, chance in enumerate(chances) if chance < 1]
    with _replaced(torch, "rand", lambda *shape, **_: queue.pop(0)):
        torch.manual_seed(0)
        masks, classes = theirs(bytes_)
    torch.manual_seed(0)
    found = [tuple(each) for each in ours.predictions(images, draws)]
    return found, list(zip(classes, masks, strict=True))  # type: ignore[return-value]


def _gradients(theirs: Any, ours: Segmenter, bytes_: Tensor, images: Tensor, draws: Tensor) -> float:
    """The largest difference over all parameters, relative to the largest gradient of the parameter."""
    found, expected = _both(theirs, ours, bytes_, images, [1.0] * ours.config.l2, draws)
    _backward(expected)
    del expected
    with tempfile.TemporaryDirectory() as folder:  # a giant's would not fit beside ours
        file = f"{folder}/gradients.safetensors"
        save_file({name: each.grad for name, each in theirs.network.named_parameters() if each.grad is not None}, file)
        theirs.zero_grad(set_to_none=True)
        _backward(found)
        gradients = renamed(load_file(file))
        mine = {name: each.grad for name, each in ours.named_parameters() if each.grad is not None}
        if mine.keys() != gradients.keys():
            return float("nan")
        return max(_relative([mine[name]], [each]) for name, each in gradients.items())


def _backward(predictions: list[tuple[Tensor, Tensor]]) -> None:
    torch.autograd.backward([part.square().mean() for pair in predictions for part in pair])


def _rates(model: str, theirs: Any, ours: Segmenter) -> Iterator[Line]:
    """Learning rate of every parameter over the training, and its weight decay."""
    yield Line("learning rate of every parameter", model, _rate(theirs, ours, _recipe(model)), 1e-6)
    if model.endswith("DINOv3"):  # configs/dinov3/coco
        theirs.llrd, theirs.llrd_l2_enabled, theirs.lr_mult = 0.8, False, 1.0
        recipe = replace(_recipe(model), layer_decay=0.8, joint_decay=False)
        yield Line("learning rates, llrd_l2_enabled False", model, _rate(theirs, ours, recipe), 1e-6)


def _rate(theirs: Any, ours: Segmenter, recipe: Recipe) -> float:
    made = theirs.configure_optimizers()
    schedule, groups = made["lr_scheduler"]["scheduler"], made["optimizer"].param_groups
    names = [group["name"].removeprefix("network.") for group in groups]
    optimizer = create_optimizer(ours, recipe)
    worst: float = max(abs(group["weight_decay"] - recipe.weight_decay) for group in groups)
    for step in (0, 1, 250, 499, 500, 1499, 1500, 2000, 3456, 5000, 12_000, STEPS - 1):
        schedule.last_epoch = step
        rates = renamed({name: torch.tensor([lr]) for name, lr in zip(names, schedule.get_lr(), strict=True)})
        set_learning_rates(optimizer, recipe, step, STEPS)
        mine = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
        if mine.keys() != rates.keys():
            return float("nan")
        worst = max(worst, *(float((rates[name] - lr).abs().max()) / recipe.lr for name, lr in mine.items()))
    return worst


def _round_trip(model: str, theirs: Any, photos: list[Any], expected: list[Any]) -> Iterator[Line]:
    """What luma predicts from the official checkpoint file, for DINOv3 also from one of differences."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save({"state_dict": theirs.state_dict(), "global_step": 1}, folder / "whole.ckpt")
        if model.endswith("DINOv2"):  # its table of positions says the size, its shapes the backbone
            whole = restore(str(folder / "whole.ckpt"), data="ade20k").segmenter
        else:
            whole = built(read_foreign(folder / "whole.ckpt", resolution=SIDE))
        labels = [predict_labels(whole, photo) for photo in photos]
        yield Line("pixels, from a checkpoint file", model, _pixels(expected, labels), 0)
        if model.endswith("DINOv3"):
            start = "network.encoder."
            base = {key: torch.randn_like(value) * 0.01 for key, value in theirs.state_dict().items() if start in key}
            base |= {key: theirs.state_dict()[key] for key in base if "pixel" in key}
            state = {key: value - base.get(key, 0) for key, value in theirs.state_dict().items()}
            torch.save(state, folder / "delta.bin")
            theirs.load_state_dict({key: value + base.get(key, 0) for key, value in state.items()}, strict=False)
            expected = [_official_labels(theirs, photo) for photo in photos]
            own = {key.removeprefix(f"{start}backbone."): value for key, value in base.items() if "pixel" not in key}
            as_saved = {key.replace("patch_embed", "embeddings").replace("blocks", "layer"): own[key] for key in own}
            save_file(as_saved, folder / "base.safetensors")
            whole = built(read_foreign(folder / "delta.bin", resolution=SIDE), str(folder / "base.safetensors"))
            labels = [predict_labels(whole, photo) for photo in photos]
            yield Line("pixels, from differences and their base", model, _pixels(expected, labels), 0)


def _official_labels(theirs: Any, photo: Any) -> Any:
    """What the official evaluation gives each pixel of an image [H, W, 3]."""
    with torch.no_grad():
        image = torch.from_numpy(photo).permute(2, 0, 1)
        crops, origins = theirs.window_imgs_semantic([image])
        masks, classes = theirs(crops)
        masks = nn.functional.interpolate(masks[-1], theirs.img_size, mode="bilinear")
        scores = theirs.to_per_pixel_logits_semantic(masks, classes[-1])
        return theirs.revert_window_logits_semantic(scores, origins, [image.shape[-2:]])[0].argmax(0).numpy()


def _annealing(official: Path) -> Iterator[Line]:
    """Every released schedule against ours: the formula by its steps, the probabilities over the whole training."""
    module = _imported("training.mask_classification_semantic").MaskClassificationSemantic
    named: dict[str, Mapping[str, Any]] = {}
    for file in sorted((official / "configs").rglob("*.yaml")):
        named[str(file.relative_to(official))] = _imported("yaml").safe_load(file.read_text())["model"]["init_args"]
    steps = {name: (each[f"{_KEY}start_steps"], each[f"{_KEY}end_steps"]) for name, each in named.items()}
    worst, count = 0.0, 0
    for name, (starts, ends) in steps.items():
        if "dinov2" in name:
            spread = MaskAnnealing.published(6 * starts[0], len(starts))
            worst = max(worst, *(abs(a - b) for a, b in zip(spread.starts + spread.ends, starts + ends, strict=True)))
            count += 1
    yield Line(f"starts and ends of {count} DINOv2 configurations, in steps", "all", worst, 1)
    starts, ends = next(each for name, each in steps.items() if "dinov3/ade20k/semantic" in name)
    recipe = load_recipe("eomt-ade20k-dinov3")
    said = mask_annealing(recipe, STEPS, len(starts))
    apart = _apart((*said.starts, *said.ends), starts + ends)
    yield Line("starts and ends of DINOv3 on ADE20K, in steps", "L/DINOv3", apart, 0)
    self = SimpleNamespace(device="cpu", poly_power=0.9, network=SimpleNamespace(attn_mask_probs=torch.ones(1)))
    worst = 0.0
    for name, (starts, ends) in steps.items():
        if "semantic" in name:
            ours = MaskAnnealing(tuple(starts), tuple(ends))
            for step in range(0, ends[-1] + 100, 7):
                expected = [float(module.mask_annealing(self, a, step, b)) for a, b in zip(starts, ends, strict=True)]
                worst = max(worst, _apart(ours.probabilities(step), expected))
    yield Line("P of 3 semantic configurations, every seventh step", "all", worst, 1e-6)


_KEY = "attn_mask_annealing_"


def _resampling() -> Line:
    """A file of weights at 518 px and patches of 14, brought to 512 px and patches of 16."""
    name = "vit_small_patch14_reg4_dinov2"
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/weights.safetensors"
        save_file(_redrawn(timm.create_model(name, num_classes=0)).state_dict(), file)
        size: dict[str, Any] = {"img_size": (512, 512), "patch_size": 16, "num_classes": 0}
        theirs = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": file}, **size)
        ours = create_backbone(resolve(name), 512, weights=file).model.state_dict()
    expected = theirs.state_dict()
    largest = max(float((value - expected[key]).abs().max()) for key, value in ours.items())
    return Line("weights resampled from 518/14 to 512/16 px", "S/DINOv2", largest, 0)


def _loss() -> Iterator[Line]:
    """Loss and its gradient of one prediction, on the same points; the matching decides both."""
    loss_world = _imported("loss_world")
    recipe, samples, num = Recipe(num_points=400), [4, 9, 2], 7
    labels = loss_world.label_maps(len(samples), 48, num)
    prediction = loss_world.prediction(len(samples), 12, num, 12, 0)
    criterion = MaskCriterion(HeadConfig(name="eomt", num_queries=12, num_classes=num), recipe, loss_world.SEED)
    ours = criterion([prediction], labels, criterion.totals(labels), loss_world.STEP, samples)
    queue = [loss_world.matching_points(recipe, sample, 0)[None] for sample in samples]
    candidates, fresh = [], []
    for image, sample in enumerate(samples):
        matched = loss_world.matched(prediction, image, labels[image], loss_world.matching_points(recipe, sample, 0))[0]
        own, order = loss_world.loss_points(recipe, len(matched), sample, 0), torch.tensor(matched).argsort()
        candidates.append(own[0][order])
        fresh.append(own[1][order])
    queue += [torch.cat(candidates), torch.cat(fresh)]
    theirs = _imported("training.mask_classification_loss").MaskClassificationLoss(
        recipe.num_points, 3.0, 0.75, 5.0, 5.0, 2.0, num, 0.1
    )
    targets = [dict(zip(("labels", "masks"), loss_world.binary_masks(each), strict=True)) for each in labels]
    with _replaced(torch, "rand", lambda *shape, **_: queue.pop(0).clone()):
        parts = theirs(prediction.mask_logits, targets, prediction.class_logits)
    total = theirs.loss_total(parts, lambda *_, **__: None)
    yield Line("loss, with its matching", "all", float((ours.total - total).abs() / total), 1e-6)
    inputs = list(prediction)
    mine, expected = (torch.autograd.grad(each, inputs) for each in (ours.total, total))
    yield Line("gradient of the loss", "all", _relative(mine, expected), 1e-5)


def _photo(height: int, width: int, seed: int) -> Any:
    """An image [H, W, 3] of bytes with soft shapes: noise would make every score alike."""
    noise = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    soft = nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0]
    return (soft * 255).byte().permute(1, 2, 0).numpy()


def _pixels(expected: Sequence[Any], found: Sequence[Any]) -> float:
    return float(sum(np.count_nonzero(one != other) for one, other in zip(expected, found, strict=True)))


def _relative(ours: Any, theirs: Any) -> float:
    """The largest difference of pairs of tensors, relative to the largest value of each pair."""
    return max(
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))
        for one, other in zip(ours, theirs, strict=True)
    )


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return max(abs(one - other) for one, other in zip(ours, theirs, strict=True))


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


if __name__ == "__main__":
    sys.exit(main())
