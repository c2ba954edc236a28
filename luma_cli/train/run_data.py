"""The dataset of a run: its two splits, and in which order a process reads the training images."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from luma_cli.catalogue.datasets import DatasetCard, load_card
from luma_cli.data.loader import Batch, StepOrder, TrainingSet, batches
from luma_cli.data.source import find_root
from luma_cli.data.split import Split, open_split
from luma_cli.errors import RunError
from luma_cli.train.config import RunConfig
from luma_cli.train.processes import Processes


@dataclass(frozen=True, slots=True)
class RunData:
    """What is read. root: where it was found."""

    card: DatasetCard
    root: str
    train: Split
    val: Split
    order: StepOrder
    training_set: TrainingSet

    @property
    def num_steps(self) -> int:
        """Optimiser steps of an epoch."""
        return self.order.steps_per_epoch

    def feed(self, first_step: int, last_step: int, num_workers: int, pin_memory: bool) -> Generator[Batch]:
        """Batches of this process for steps first_step .. last_step - 1."""
        return batches(self.training_set, self.order, first_step, last_step, num_workers, pin_memory=pin_memory)


def open_data(config: RunConfig, processes: Processes) -> RunData:
    """Find and open the dataset of `config`.

    Raises DataError, BadCard, UsageError; RunError where the training files are not those that the run began with.
    """
    card = load_card(config.data)
    root = find_root(card, config.data_root or None)
    train, val = open_split(card, root, "train"), open_split(card, root, "val")
    if config.data_fingerprint and train.fingerprint != config.data_fingerprint:
        raise RunError(
            f"the training files have fingerprint {train.fingerprint[:12]}, the run began with "
            f"{config.data_fingerprint[:12]}; name their folder with --root, or start a new run"
        )
    order = StepOrder(len(train), config.recipe.batch, config.seed, processes.rank, processes.num)
    augmentation = config.recipe.augmentation()
    training_set = TrainingSet(train, config.resolution, augmentation, config.seed, config.skip_bad)
    return RunData(card, str(root.place.absolute()), train, val, order, training_set)
