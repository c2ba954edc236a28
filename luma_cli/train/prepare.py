"""Everything that a training needs, made from its configuration: data, model, loss, optimiser, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from luma_cli.catalogue.names import resolve
from luma_cli.data.card import DatasetCard, load_card
from luma_cli.data.loader import Batch, batches
from luma_cli.data.locate import find_root
from luma_cli.data.order import StepOrder
from luma_cli.data.split import Split, open_split
from luma_cli.data.training_set import TrainingSet
from luma_cli.head.eomt import EomtHead
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure import imports
from luma_cli.train import batch_norm, gradient_checkpointing
from luma_cli.train.criterion import create_criterion
from luma_cli.train.device import autocast_dtype
from luma_cli.train.divergence import Watch
from luma_cli.train.ema import Ema
from luma_cli.train.micro_batch import find_micro_batch
from luma_cli.train.optimiser import create_optimizer
from luma_cli.train.processes import Processes
from luma_cli.train.recipe import Recipe
from luma_cli.train.recipes import check
from luma_cli.train.run_config import RunConfig
from luma_cli.train.schedule import mask_annealing
from luma_cli.train.step import Trainer
from luma_cli.train.supervised import Supervised
from luma_cli.train.untrained import freeze_unreached


@dataclass(frozen=True, slots=True)
class Data:
    """The dataset of a run: its card, its splits, and in which order this process reads the training images."""

    card: DatasetCard
    train: Split
    val: Split
    order: StepOrder
    training_set: TrainingSet

    def feed(self, first_step: int, last_step: int, num_workers: int, pin_memory: bool) -> Iterator[Batch]:
        """This process's batches of steps first_step .. last_step - 1."""
        return batches(self.training_set, self.order, first_step, last_step, num_workers, pin_memory=pin_memory)


def open_data(config: RunConfig, processes: Processes) -> Data:
    """Find and open the dataset. Raises DataError, BadCard, UsageError."""
    card = load_card(config.data)
    root = find_root(card, config.data_root or None)
    train, val = open_split(card, root, "train"), open_split(card, root, "val")
    order = StepOrder(len(train), config.recipe.batch, config.seed, processes.rank, processes.num)
    training_set = TrainingSet(train, config.resolution, config.recipe.augmentation(), config.seed, config.skip_bad)
    return Data(card, train, val, order, training_set)


def num_steps_of(recipe: Recipe, steps_per_epoch: int) -> int:
    """Optimiser steps of a run: those of the recipe, or of its epochs."""
    return recipe.steps or max(1, round(recipe.epochs * steps_per_epoch))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A trainer and what was decided while it was made. facts: for the store, plain values."""

    trainer: Trainer
    config: RunConfig
    facts: dict[str, Any] = field(default_factory=dict)


def build_segmenter(config: RunConfig, weights: str) -> Segmenter:
    """The segmenter of a run, on the CPU. Raises UnknownName, BadResolution, WeightsError, BuildError."""
    for target in config.imports:
        imports.load(imports.find(target))
    spec = resolve(config.backbone, imported=bool(config.imports))
    return build(spec, config.resolution, head=config.head, weights=weights, seed=config.seed)


def prepare(
    config: RunConfig,
    segmenter: Segmenter,
    num_steps: int,
    device: torch.device,
    processes: Processes,
    on_note: Callable[[str], None],
) -> Prepared:
    """A trainer of `segmenter` on `device`. Raises BadRecipe for a recipe that does not fit the number of steps."""
    recipe = config.recipe
    num_joint = segmenter.head.plan.num_joint if isinstance(segmenter.head, EomtHead) else 0
    check(recipe, num_steps, num_joint)
    unreached = freeze_unreached(segmenter, config.resolution)
    segmenter = segmenter.to(device)
    optimizer = create_optimizer(segmenter, recipe)
    checkpointed = gradient_checkpointing.enable(segmenter) if config.grad_checkpoint else ""
    autocast = autocast_dtype(recipe.dtype, device)
    trainer = Trainer(
        model=Supervised(segmenter).to(device),
        segmenter=segmenter,
        criterion=create_criterion(config.head, recipe, config.seed),
        optimizer=optimizer,
        recipe=recipe,
        num_steps=num_steps,
        seed=config.seed,
        micro_batch=config.micro_batch,
        device=device,
        processes=processes,
        watch=Watch(half_precision=autocast == torch.float16),
        autocast=autocast,
        scaler=torch.amp.GradScaler(device.type) if autocast == torch.float16 else None,
        ema=Ema(segmenter, recipe.ema_decay) if recipe.ema_decay else None,
        annealing=mask_annealing(recipe, num_steps, num_joint) if num_joint else None,
    )
    return Prepared(trainer, config, {})
