"""A trainer, made from a configuration and a segmenter: what learns and how, in which portions, wrapped as needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from luma_cli.catalogue.recipes import check
from luma_cli.data.loader import Batch
from luma_cli.head.eomt import EomtHead
from luma_cli.head.segmenter import Segmenter
from luma_cli.train import batch_norm, memory
from luma_cli.train.batch_norm import BatchNormChoice
from luma_cli.train.config import RunConfig
from luma_cli.train.criterion import create_criterion
from luma_cli.train.memory import MicroBatch, rehearsal
from luma_cli.train.optimiser import Ema, create_optimizer, freeze_backbone, freeze_unreached, mask_annealing
from luma_cli.train.processes import Processes, autocast_dtype
from luma_cli.train.step import Supervised, Trainer, Watch

_NUM_SEGMENTS = 20  # of a made-up image; ADE20K has 8 on average and up to 33
_AT_REST = BatchNormChoice("frozen", "rehearsal")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A trainer, its configuration with what was found out, and what was decided, as plain values by name."""

    trainer: Trainer
    config: RunConfig
    facts: dict[str, Any]


def prepare(
    config: RunConfig,
    segmenter: Segmenter,
    num_steps: int,
    device: torch.device,
    processes: Processes,
    step_images: int | None = None,
) -> Prepared:
    """A trainer of `segmenter` on `device`, which it is moved to. step_images: fewer than the recipe's batch, if so.

    Raises BadRecipe for a recipe that does not fit the number of steps, RunError where no image fits into memory.
    """
    recipe = config.recipe
    num_joint = segmenter.head.plan.num_joint if isinstance(segmenter.head, EomtHead) else 0
    check(recipe, num_steps, num_joint)
    if recipe.freeze_backbone:
        freeze_backbone(segmenter)
    unreached = freeze_unreached(segmenter, config.resolution)
    segmenter.to(device)
    forgotten = str(memory.enable(segmenter)) if config.grad_checkpoint else "all kept"
    autocast = autocast_dtype(recipe.dtype, device)
    share = -(-(step_images or recipe.batch) // processes.num)
    trainer = Trainer(
        model=Supervised(segmenter).to(device),
        segmenter=segmenter,
        criterion=create_criterion(config.head, recipe, config.seed),
        optimizer=create_optimizer(segmenter, recipe),
        recipe=recipe,
        num_steps=num_steps,
        seed=config.seed,
        micro_batch=min(config.micro_batch or share, share),
        device=device,
        processes=Processes(),
        watch=Watch(half_precision=autocast == torch.float16),
        autocast=autocast,
        scaler=torch.amp.GradScaler(device.type) if autocast == torch.float16 else None,
        ema=Ema(segmenter, recipe.ema_decay) if recipe.ema_decay else None,
        annealing=mask_annealing(recipe, num_steps, num_joint) if num_joint else None,
    )
    passes = MicroBatch(trainer.micro_batch, -(-share // trainer.micro_batch))
    if not config.micro_batch:
        found = find_micro_batch(trainer, config, share)
        trainer.micro_batch = min(processes.from_all(found.num_images))
        passes = MicroBatch(trainer.micro_batch, -(-share // trainer.micro_batch), found.tried)
    norms = batch_norm.choose(
        segmenter,
        recipe.batch_norm,
        num_processes=processes.num,
        images_per_pass=trainer.micro_batch,
        device_type=device.type,
    )
    batch_norm.apply(segmenter, norms)
    batch_norm.train_mode(segmenter, norms)
    trainer.processes = processes
    trainer.model = wrapped(trainer.model, config.compile, device, processes)
    learning = sum(parameter.numel() for parameter in segmenter.parameters() if parameter.requires_grad)
    facts = {
        "params": sum(parameter.numel() for parameter in segmenter.parameters()),
        "params_trained": learning,
        "params_unreached": list(unreached),
        "micro_batch": str(passes),
        "activations": forgotten,
        "batch_norm": str(norms),
        "dtype": str(autocast or torch.float32).removeprefix("torch."),
        "num_processes": processes.num,
    }
    return Prepared(trainer, replace(config, micro_batch=trainer.micro_batch), facts)


def find_micro_batch(trainer: Trainer, config: RunConfig, share: int) -> MicroBatch:
    """The most images of a pass, found by steps that do not count. Raises RunError where not even one fits."""
    rehearsed = replace(trainer, watch=Watch(half_precision=True), ema=None, scaler=None, micro_batch=share)

    def attempt(num_images: int) -> None:
        rehearsed.step(made_up_batch(num_images, config.resolution, config.head.num_classes))

    least = 2 if config.recipe.batch_norm == "train" else 1
    with rehearsal(trainer.segmenter, trainer.optimizer):
        batch_norm.train_mode(trainer.segmenter, _AT_REST)
        return memory.find(attempt, share, trainer.device.type, least=least)


def made_up_batch(num_images: int, resolution: int, num_classes: int) -> Batch:
    """Noise with a label map of up to 20 stripes: as many masks as a rich image has."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, 3, resolution, resolution), dtype=torch.uint8, generator=generator)
    stripes = torch.arange(resolution) * min(_NUM_SEGMENTS, num_classes) // resolution
    labels = stripes.to(torch.uint8).expand(num_images, resolution, resolution)
    return Batch(0, 0, images, labels, tuple(range(num_images)), ())


def wrapped(model: nn.Module, compile_mode: str, device: torch.device, processes: Processes) -> nn.Module:
    """`model` compiled, and averaging its gradients over the processes."""
    if compile_mode != "none":
        model = torch.compile(model, mode=None if compile_mode == "default" else compile_mode)  # type: ignore[assignment]
    if processes.num == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
