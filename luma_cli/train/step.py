"""One step of the optimiser: micro-batches, a loss over all of them and all processes, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from luma_cli.catalogue.recipes import Recipe
from luma_cli.data.loader import Batch
from luma_cli.head.eomt import EomtHead, MaskAnnealing
from luma_cli.head.segmenter import Segmenter
from luma_cli.seeds import MODEL, seed_of
from luma_cli.train.criterion import Criterion, LossParts
from luma_cli.train.divergence import Watch
from luma_cli.train.ema import Ema
from luma_cli.train.optimiser import set_learning_rates
from luma_cli.train.processes import Processes
from luma_cli.train.supervised import mask_draws

_NUM_PARTS = len(LossParts._fields)


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a step computed, over all processes. skipped: the update was left out, as something was not finite."""

    loss: float
    bce: float
    dice: float
    classes: float
    lr: float
    gradient_norm: float
    skipped: bool


@dataclass(slots=True)
class Trainer:
    """The objects of a training, and the step that uses them.

    model: `Supervised`, wrapped as needed; segmenter: the bare one inside. num_steps: of the whole run. micro_batch:
    images of one pass of this process, at most. autocast: number format of the passes, None for float32.
    """

    model: nn.Module
    segmenter: Segmenter
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    num_steps: int
    seed: int
    micro_batch: int
    device: torch.device
    processes: Processes
    watch: Watch
    autocast: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None
    ema: Ema | None = None
    annealing: MaskAnnealing | None = None

    def step(self, batch: Batch, stop: Callable[[], bool] = lambda: False) -> Stepped | None:
        """Train on this process's part of a batch; None, with nothing changed, when any process wants to stop.

        Raises Diverged when the run cannot come back.
        """
        labels = batch.labels.to(self.device, non_blocking=True)
        totals = self._totals(labels, stop())
        if totals is None:
            return None
        self._set(batch.step)
        self.optimizer.zero_grad(set_to_none=True)
        sums = self._gradients(batch, labels, totals)
        norm = self._clip()
        total, bce, dice, classes = (self.processes.sum(sums) / self.processes.num).tolist()
        update = self.watch.see(batch.step, total, norm)
        self._update(update)
        lr = max(float(group["lr"]) for group in self.optimizer.param_groups)
        return Stepped(total, bce, dice, classes, lr, norm, skipped=not update)

    def _totals(self, labels: Tensor, stop: bool) -> Tensor | None:
        """What the loss is divided by, per process; None when any process wants to stop, so that all agree."""
        own = self.criterion.totals(labels)
        summed = self.processes.sum(torch.cat([own, own.new_tensor([float(stop)])]))
        return None if summed[-1] > 0 else summed[:-1] / self.processes.num

    def _set(self, step: int) -> None:
        set_learning_rates(self.optimizer, self.recipe, step, self.num_steps)
        if self.annealing is not None and isinstance(self.segmenter.head, EomtHead):
            self.segmenter.head.anneal(self.annealing.probabilities(step))

    def _gradients(self, batch: Batch, labels: Tensor, totals: Tensor) -> Tensor:
        """Adds up the gradients of all passes; gives the sums of total, BCE, Dice and class loss, float64 [4]."""
        sums = torch.zeros(_NUM_PARTS, dtype=torch.float64, device=self.device)
        starts = range(0, len(batch.samples), self.micro_batch)
        for start in starts:
            part = slice(start, start + self.micro_batch)
            images = batch.images[part].to(self.device, non_blocking=True)
            with self._synchronised(start == starts[-1]):
                parts = self._pass(images, labels[part], totals, batch.step, batch.samples[part], len(batch.samples))
            sums += torch.stack([value.detach().double() for value in parts])
        return sums

    def _pass(
        self, images: Tensor, labels: Tensor, totals: Tensor, step: int, samples: Sequence[int], num_samples: int
    ) -> LossParts:
        """Forward and backward of some images."""
        torch.manual_seed(seed_of(MODEL, self.seed, step, samples[0]))
        draws = mask_draws(self.segmenter, self.device, self.seed, step, samples)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            predictions, balance = self.model(images, draws)
        parts = self.criterion(predictions, labels, totals, step, samples)
        loss = parts.total + balance * (len(samples) / num_samples)
        (self.scaler.scale(loss) if self.scaler else loss).backward()
        return parts

    def _synchronised(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are averaged over the processes in the last pass of a step alone."""
        skips = isinstance(self.model, DistributedDataParallel) and not last
        return self.model.no_sync() if skips else nullcontext()  # type: ignore[operator]

    def _clip(self) -> float:
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return float(nn.utils.clip_grad_norm_(trained, self.recipe.clip_norm or math.inf))

    def _update(self, wanted: bool) -> None:
        if wanted and self.scaler:
            self.scaler.step(self.optimizer)
        elif wanted:
            self.optimizer.step()
        if self.scaler:
            self.scaler.update()  # lowers the scale after a gradient that was not finite
        if wanted and self.ema is not None:
            self.ema.update(self.segmenter)
