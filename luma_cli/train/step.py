"""One step of the optimiser: micro-batches, a loss over all of them and all processes, clipping, update.

B images of a pass, R their side in pixels, J joint blocks of an EoMT head, K queries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from luma_cli.catalogue.recipes import Recipe
from luma_cli.data.loader import Batch
from luma_cli.errors import Diverged
from luma_cli.head.eomt import EomtHead, MaskAnnealing
from luma_cli.head.segmenter import Output, Segmenter
from luma_cli.isotropic.mixtures import balance_loss
from luma_cli.seeds import MASKS, MODEL, seed_of
from luma_cli.train.criterion import Criterion, LossParts
from luma_cli.train.optimiser import Ema, set_learning_rates
from luma_cli.train.points import uniform
from luma_cli.train.processes import Processes

_WHITE = 255
_WINDOW = 50  # steps over which a loss is judged
_FACTOR = 10.0  # a mean loss above this multiple of the first window's is an explosion: sound runs fall
_PATIENCE = 5  # updates left out in a row
_PATIENCE_FP16 = 24  # the loss scale halves at each, from 65536 to below 0.01 (normal in the first steps)
_ADVICE = "try --set lr=... at a third of its value, a longer warm-up, or --dtype fp32"


class Supervised(nn.Module):
    """The segmenter as training calls it: normalises 8-bit images, then gives every supervised prediction.

    Besides the predictions it gives the balance loss of a mixture of experts, 0 for a dense backbone, so that wrappers
    that watch the output (DDP) see all that is trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter
        normalisation = segmenter.backbone.normalisation
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", _WHITE * torch.tensor(normalisation.mean).view(shape), persistent=False)
        self.register_buffer("std", _WHITE * torch.tensor(normalisation.std).view(shape), persistent=False)

    def forward(self, images: Tensor, draws: Tensor | None) -> tuple[tuple[Output, ...], Tensor]:
        """Images uint8 [B, 3, R, R] and an EoMT head's draws [B, J, K] -> predictions, final one last; balance loss."""
        normalised = (images - self.mean) / self.std
        return self.segmenter.predictions(normalised, draws), balance_loss(self.segmenter.backbone)


@dataclass(slots=True)
class DivergenceWatch:
    """Counts updates that were left out, and compares the loss with that of the first steps.

    `state` and `resume` carry it over a stop, so that a resumed run stops where the whole one would.
    """

    half_precision: bool = False
    skipped: int = 0
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)

    def see(self, step: int, loss: float, gradient_norm: float) -> bool:
        """Whether the update of this step may be made: loss and gradient are finite. Raises Diverged, with advice."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self.skipped = 0
            self._compare(step, loss)
            return True
        self.skipped += 1
        patience = _PATIENCE_FP16 if self.half_precision else _PATIENCE
        if self.skipped >= patience:
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise Diverged(f"the {what} was not finite {patience} times in a row, up to step {step}; {_ADVICE}")
        return False

    def state(self) -> dict[str, object]:
        """Plain values for a checkpoint."""
        return {"skipped": self.skipped, "first": list(self.first), "last": list(self.last)}

    def resume(self, state: dict[str, object]) -> None:
        """Go on from what `state` gave."""
        self.skipped = int(str(state["skipped"]))
        self.first, self.last = [[float(value) for value in state[name]] for name in ("first", "last")]  # type: ignore[attr-defined]

    def _compare(self, step: int, loss: float) -> None:
        if len(self.first) < _WINDOW:
            self.first.append(loss)
            return
        self.last = [*self.last[-_WINDOW + 1 :], loss]
        now, then = sum(self.last) / len(self.last), sum(self.first) / len(self.first)
        if len(self.last) == _WINDOW and now > _FACTOR * then:
            raise Diverged(f"the loss grew from {then:.3g} to {now:.3g} up to step {step}; {_ADVICE}")


class StepResult(NamedTuple):
    """What a step computed over all processes; skipped: the update was left out, as something was not finite.

    metrics: by the names of the store: loss, loss_bce, loss_dice, loss_class, lr, grad_norm.
    """

    metrics: dict[str, float]
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
    watch: DivergenceWatch
    autocast: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None
    ema: Ema | None = None
    annealing: MaskAnnealing | None = None

    def step(self, batch: Batch, stop: Callable[[], bool] = lambda: False) -> StepResult | None:
        """Train on this process's part of a batch; None, with nothing changed, when any process wants to stop.

        Raises Diverged when the run cannot come back.
        """
        labels = batch.labels.to(self.device, non_blocking=True)
        totals = self._totals(labels, stop())
        if totals is None:
            return None
        set_learning_rates(self.optimizer, self.recipe, batch.step, self.num_steps)
        if self.annealing is not None and isinstance(self.segmenter.head, EomtHead):
            self.segmenter.head.anneal(self.annealing.probabilities(batch.step))
        self.optimizer.zero_grad(set_to_none=True)
        sums = self._gradients(batch, labels, totals)
        norm = self._clip()
        total, bce, dice, classes = (self.processes.sum(sums) / self.processes.num).tolist()
        update = self.watch.see(batch.step, total, norm)
        self._update(update)
        lr = max(float(group["lr"]) for group in self.optimizer.param_groups)
        losses = {"loss": total, "loss_bce": bce, "loss_dice": dice, "loss_class": classes}
        return StepResult({**losses, "lr": lr, "grad_norm": norm}, skipped=not update)

    def _totals(self, labels: Tensor, stop: bool) -> Tensor | None:
        """What the loss is divided by, per process; None when any process wants to stop, so that all agree."""
        own = self.criterion.totals(labels)
        summed = self.processes.sum(torch.cat([own, own.new_tensor([float(stop)])]))
        return None if summed[-1] > 0 else summed[:-1] / self.processes.num

    def _gradients(self, batch: Batch, labels: Tensor, totals: Tensor) -> Tensor:
        """Adds up the gradients of all passes; gives the sums of total, BCE, Dice and class loss, float64 [4]."""
        sums = torch.zeros(len(LossParts._fields), dtype=torch.float64, device=self.device)
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
        draws = self._mask_draws(step, samples)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            predictions, balance = self.model(images, draws)
        parts = self.criterion(predictions, labels, totals, step, samples)
        loss = parts.total + balance * (len(samples) / num_samples)
        (self.scaler.scale(loss) if self.scaler else loss).backward()
        return parts

    def _mask_draws(self, step: int, samples: Sequence[int]) -> Tensor | None:
        """Numbers [B, J, K] that free an EoMT head's queries in this step, by sample; None where none are needed."""
        head = self.segmenter.head
        if not isinstance(head, EomtHead) or all(value in (0.0, 1.0) for value in head.mask_probabilities):
            return None
        shape = (head.plan.num_joint, head.queries.num_embeddings)
        return torch.stack([uniform(shape, self.device, MASKS, self.seed, step, sample) for sample in samples])

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
