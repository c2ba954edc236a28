"""A run that is ready for its next step: configuration, data, model and trainer, from what was asked for."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from luma_cli.backbone.timm_model import rescale_rotations
from luma_cli.catalogue.recipes import Dtype, check, fitted_warmups
from luma_cli.data.cache import cached
from luma_cli.data.loader import Batch, Skipped, StepOrder, TrainingSet, batches
from luma_cli.data.source import find_root
from luma_cli.data.split import Samples, Split, open_split, shared_note
from luma_cli.errors import RunError, UsageError
from luma_cli.evaluate.inference import autocast_dtype as evaluation_dtype
from luma_cli.head.eomt import EomtHead
from luma_cli.head.segmenter import Segmenter
from luma_cli.measure import devices
from luma_cli.measure.facts import segmenter_cost
from luma_cli.store.database import free_bytes
from luma_cli.train import batch_norm, memory, run_folder
from luma_cli.train.checkpoint import CheckpointState, load_checkpoint, restore_random_state
from luma_cli.train.checkpoints import changed_versions, latest_sound, read_manifest, versions
from luma_cli.train.config import (
    Given,
    RunConfig,
    Settings,
    check_same,
    continued,
    new_config,
    resumed_config,
    sets_no_warmup,
)
from luma_cli.train.criterion import create_criterion
from luma_cli.train.optimiser import (
    Ema,
    create_optimizer,
    freeze_backbone,
    freeze_first_blocks,
    freeze_unreached,
    mask_annealing,
)
from luma_cli.train.processes import Processes
from luma_cli.train.restore import build_model, start_from
from luma_cli.train.runs import find_run, find_weights
from luma_cli.train.step import DivergenceWatch, Supervised, Trainer

Note = Callable[[str], None]
_MOST_WORKERS = 8
_CACHE_SHARE = 0.25  # of the free memory, for decoded images
_NUM_SEGMENTS = 20  # of a made-up image; ADE20K has 8 on average and up to 33
_AT_REST = batch_norm.BatchNormChoice("frozen", "rehearsal")


@dataclass(slots=True)
class Run:
    """A run in memory, of which `step` of `num_steps` optimiser steps are done.

    order: the images that each step of this process reads from `train`. facts: what was decided and found out, plain
    values. macs_per_window: None where an operation could not be counted. seconds: trained in earlier sessions. scores:
    mIoU in percent by validated step. skipped: bad samples met so far. samples: what steps read `train` through, None
    for itself.
    """

    run_id: str
    folder: Path
    config: RunConfig
    train: Split
    val: Split
    order: StepOrder
    num_steps: int
    trainer: Trainer
    facts: dict[str, Any]
    macs_per_window: int | None
    num_workers: int
    skipped: Skipped
    is_resumed: bool = False
    step: int = 0
    seconds: float = 0.0
    scores: dict[int, float | None] = field(default_factory=dict)
    samples: Samples | None = None

    @property
    def evaluation_steps(self) -> int:
        """Steps between validations; all steps where the last one alone is validated."""
        every = self.config.recipe.eval_every_epochs * self.order.steps_per_epoch
        return max(1, round(every)) if every else self.num_steps

    @property
    def is_done(self) -> bool:
        """Whether all steps are done, or so many validations in a row brought nothing better as the recipe allows."""
        known = {step: score for step, score in sorted(self.scores.items()) if score is not None}
        patience = self.config.recipe.patience
        best = max(known, key=lambda step: known[step], default=0)
        return self.step >= self.num_steps or 0 < patience <= sum(step > best for step in self.scores)

    @property
    def recipe_name(self) -> str:
        """Name of the recipe, with a + where settings of it were changed."""
        return self.config.recipe.name + ("+" if self.config.recipe_changed else "")

    def batches(self, last_step: int) -> Generator[Batch]:
        """Batches of this process for the steps from the next one up to `last_step`."""
        config = self.config
        augmentation = config.recipe.augmentation()
        samples = self.train if self.samples is None else self.samples
        training_set = TrainingSet(samples, config.resolution, augmentation, config.seed, config.skip_bad)
        pin = self.trainer.device.type == "cuda"
        return batches(training_set, self.order, self.step, last_step, self.num_workers, pin_memory=pin)


def make_ready(given: Given, settings: Settings, device: torch.device, processes: Processes, note: Note) -> Run:
    """A run before its next step. What can go wrong comes cheapest first: settings, data, folder, weights, memory.

    Raises UsageError, BadRecipe, DataError, RunError, CheckpointError, WeightsError.
    """
    begin = _resumed if settings.resume else _new
    run_id, folder, config, state = begin(given, settings, processes, note)
    train, val, root = _open_data(config, given.root)
    is_resumed = bool(settings.resume)
    order = StepOrder(len(train), config.recipe.batch, config.seed, processes.rank, processes.num)
    for text in filter(None, (order.shrunk, shared_note(train, val))):
        note(text)
    num_steps = config.recipe.steps or max(1, round(config.recipe.epochs * order.steps_per_epoch))
    warmups = ""
    if not is_resumed and sets_no_warmup(given):
        config, warmups = _fitted(config, num_steps)
    origin = None if state or not config.init else find_weights(config.init["weights"])
    if origin and origin.sha256 != config.init["sha256"]:
        raise RunError(f"{origin.file} is not what the run began with; restore it, or start a new run with --init")
    segmenter = _model(config, "random" if state or origin else config.weights, processes)
    kept = start_from(segmenter, origin, config) if origin else ""
    normalisation = segmenter.backbone.normalisation
    mean, std, fingerprint = normalisation.mean, normalisation.std, train.fingerprint
    config = replace(config, data_root=root, data_fingerprint=fingerprint, mean=mean, std=std)
    counted = segmenter_cost(segmenter)
    macs = counted.macs if counted.complete else None
    trainer, facts = prepare(config, segmenter, num_steps, device, processes, order.step_size)
    facts |= {"macs": macs, "ffn": segmenter.ffn, "num_train_images": len(train), "num_val_images": len(val)}
    facts["command"] = sys.argv[1:]
    if warmups:
        facts["warmups"] = warmups
    _check_disk(folder, facts, config, note)
    config = replace(config, micro_batch=trainer.micro_batch)
    num_workers = _num_workers(settings, device)
    skipped = Skipped(config.skip_bad)
    run = Run(run_id, folder, config, train, val, order, num_steps, trainer, facts, macs, num_workers, skipped)
    run.is_resumed = is_resumed
    run.samples, facts["images"] = cached(train, _CACHE_SHARE * devices.available_bytes() / _on_this_machine())
    if state:
        _restore(run, state)
    elif origin:
        facts["weights"] = {"source": f"{origin.file}, {kept}", "sha256": origin.sha256, "conversions": []}
    else:  # a resumed run has the origin of its weights in the store
        weights = segmenter.backbone.weights
        conversions = list(weights.conversions)
        facts["weights"] = {"source": weights.source, "sha256": weights.sha256, "conversions": conversions}
    return run


_Beginning = tuple[str, Path, RunConfig, CheckpointState | None]


def _new(given: Given, settings: Settings, processes: Processes, note: Note) -> _Beginning:
    """Id, folder and configuration of a new run; the folder is checked but not made."""
    start = find_weights(given.init, database=settings.database) if given.init else None
    config = new_config(_with_run_weights(given, settings), processes.num, start.config if start else None)
    config = replace(config, session=settings.lasting)
    if start:
        init: dict[str, Any] = {
            "weights": str(start.file.absolute()),
            "sha256": start.sha256,
            "class_layer": given.class_layer,
        }
        mean, std = start.config.mean, start.config.std
        config = replace(config, init=init, weights=init["weights"], mean=mean, std=std)
    run_id = processes.from_first(run_folder.new_run_id(config.backbone, config.data, datetime.now()))
    folder = (settings.out or run_folder.ROOT / run_id).expanduser().absolute()
    if processes.is_first:
        run_folder.check_free(folder)
    return run_id, folder, config, None


def _resumed(given: Given, settings: Settings, processes: Processes, note: Note) -> _Beginning:
    """The run that is named, at its newest sound checkpoint, or at the one that is named; or at its start before any.

    Raises RunError where there is none, or where something is asked for that the run was not started with; UsageError
    for another folder.
    """
    found = find_run(settings.resume, settings.database)
    out = settings.out
    if found.folder and out and out.expanduser().absolute() != found.folder.path.absolute():
        raise UsageError(f"--out {out} is not the folder of run {found.run_id}, which stays; leave --out out")
    if found.folder is None:
        where = f", its folder was {found.record.folder}" if found.record and found.record.folder else ""
        name = found.run_id or settings.resume
        raise RunError(f"run {name} is not on this machine{where}; give the path of its folder")
    path = found.checkpoint
    if path is None and run_folder.without_checkpoint(found.folder.path):
        note("it ended before its first checkpoint, so it starts over")
        saved = found.folder.config()
        config = resumed_config(given, saved, processes.num)
        check_same(saved, config)
        return found.folder.run_id, found.folder.path, continued(saved, config), None
    if path is None:
        sound = latest_sound(found.folder)
        path = sound.path
        for skipped in sound.skipped:
            note(f"left out checkpoint {skipped.name}: {skipped.why}")
    path = Path(processes.from_first(str(path)))  # a folder shared by machines may not look alike on all of them yet
    state = load_checkpoint(path, verify=found.checkpoint is not None)
    if not state.optimizer:
        raise RunError(f"run {state.run_id} was imported, without an optimiser; start from it: --init {state.run_id}")
    config = resumed_config(given, state.config, processes.num)
    config = replace(config, session={**config.session, **settings.lasting})
    for change in (*check_same(state.config, config), *changed_versions(read_manifest(path).versions, versions())):
        note(f"not equal to the last bit: {change}")
    return found.folder.run_id, found.folder.path, continued(state.config, config), state


def _with_run_weights(given: Given, settings: Settings) -> Given:
    """`given` with the best weights file of a run in place of the run that `--weights` names."""
    name = given.weights
    if not name or name in ("pretrained", "random") or ":" in name or Path(name).expanduser().is_file():
        return given
    try:
        return replace(given, weights=str(find_weights(name, database=settings.database).file))
    except RunError:
        return given  # the loader says what it expects


def _fitted(config: RunConfig, num_steps: int) -> tuple[RunConfig, str]:
    """The configuration with warm-ups that fit, and what was done about them in one line; empty for nothing."""
    before, recipe = config.recipe, fitted_warmups(config.recipe, num_steps)
    if recipe == before:
        return config, ""
    said = (
        f"{recipe.warmup_head_steps} + {recipe.warmup_backbone_steps} steps instead of the recipe's "
        f"{before.warmup_head_steps} + {before.warmup_backbone_steps}, which take more than a fifth of the training"
    )
    changed = [name for name in ("warmup_head_steps", "warmup_backbone_steps") if name not in config.recipe_changed]
    return replace(config, recipe=recipe, recipe_changed=(*config.recipe_changed, *changed)), said


def _check_disk(folder: Path, facts: Mapping[str, Any], config: RunConfig, note: Note) -> None:
    """Raises RunError where not one checkpoint fits on the disk, and notes where not all that are kept do."""
    numbers = facts["params"] + (2 + bool(config.recipe.ema_decay)) * facts["params_trained"]
    size, free = 4 * numbers, free_bytes(folder / run_folder.CONFIG)
    kept = config.session.get("keep", 2) + 2  # the best one, and the next one while the others are still there
    if size * kept <= free:
        return
    text = f"{free / 1e9:.2g} GB are free for {folder}, and a checkpoint takes {size / 1e9:.2g} GB"
    if size > free:
        raise RunError(f"{text}; free some space, or name another folder with --out")
    note(f"{text}, of which up to {kept} are there at once; free some space, or keep fewer with --keep 1")


def _open_data(config: RunConfig, root_given: str | None) -> tuple[Split, Split, str]:
    """Training and validation split, and the folder in which they were found.

    Raises DataError, BadCard, UsageError; RunError where the training files are not those that the run began with.
    """
    card = config.dataset
    root = find_root(card, root_given, config.data_root)
    train, val = open_split(card, root, "train"), open_split(card, root, "val")
    if config.data_fingerprint and train.fingerprint != config.data_fingerprint:
        raise RunError(
            f"the training files have fingerprint {train.fingerprint[:12]}, the run began with "
            f"{config.data_fingerprint[:12]}; name their folder with --root, or start a new run"
        )
    return train, val, str(root.place.absolute())


def _model(config: RunConfig, weights: str, processes: Processes) -> Segmenter:
    """The segmenter on the CPU; one process downloads weights, the others then find the file there."""
    if not processes.is_first:
        processes.wait()
    segmenter = build_model(config, weights)
    if processes.is_first:
        processes.wait()
    return segmenter


def _restore(run: Run, state: CheckpointState) -> None:
    """The run as it was after `state.step` steps."""
    trainer = run.trainer
    trainer.segmenter.load_state_dict(dict(state.model))
    trainer.optimizer.load_state_dict(dict(state.optimizer))
    trainer.watch.resume(state.extra["watch"])
    if trainer.scaler and state.scaler:
        trainer.scaler.load_state_dict(dict(state.scaler))
    if trainer.ema and state.ema is not None:
        trainer.ema.load_state_dict({"num_updates": state.extra["ema_updates"], "averages": state.ema})
    restore_random_state(state.random, trainer.processes.rank, trainer.device)
    run.step, run.seconds = state.step, state.seconds
    run.scores = {int(step): score for step, score in state.extra["scores"].items()}
    run.skipped.add(state.extra["skipped"])


def prepare(
    config: RunConfig,
    segmenter: Segmenter,
    num_steps: int,
    device: torch.device,
    processes: Processes,
    step_images: int | None = None,
) -> tuple[Trainer, dict[str, Any]]:
    """A trainer of `segmenter` on `device`, which it is moved to, and what was decided, as plain values by name.

    step_images: images of a step, where they are fewer than the recipe's batch. Raises BadRecipe for a recipe that does
    not fit the number of steps, RunError where no image fits into memory.
    """
    recipe = config.recipe
    num_joint = segmenter.head.plan.num_joint if isinstance(segmenter.head, EomtHead) else 0
    keeps_masks = config.head.variant == "masked"
    check(recipe, num_steps, num_joint)
    rescale_rotations(segmenter.backbone.model, recipe.rope_rescale)
    if recipe.freeze_backbone:
        freeze_backbone(segmenter)
    elif recipe.freeze:
        freeze_first_blocks(segmenter, recipe.freeze)
    # Before the optimiser is made and before compilation, which both ask what learns.
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
        processes=Processes(),  # alone while memory is tried out: one process may fail where another does not
        watch=DivergenceWatch(half_precision=autocast == torch.float16),
        autocast=autocast,
        scaler=torch.amp.GradScaler(device.type) if autocast == torch.float16 else None,
        ema=Ema(segmenter, recipe.ema_decay) if recipe.ema_decay else None,
        annealing=mask_annealing(recipe, num_steps, num_joint) if num_joint and not keeps_masks else None,
    )
    tried: tuple[tuple[int, str], ...] = ()
    if not config.micro_batch:
        found = _most_images(trainer, config, share)
        trainer.micro_batch, tried = min(processes.from_all(found.num_images)), found.tried
    # Only now is it known how many images a BatchNorm sees, and synchronised ones must be there before DDP wraps them.
    images = trainer.micro_batch
    norms = batch_norm.choose(
        segmenter, recipe.batch_norm, num_processes=processes.num, images_per_pass=images, device_type=device.type
    )
    batch_norm.apply(segmenter, norms)
    batch_norm.train_mode(segmenter, norms)
    trainer.processes = processes
    trainer.model = _wrapped(trainer.model, config.compile, device, processes)
    return trainer, {
        "params": sum(parameter.numel() for parameter in segmenter.parameters()),
        "params_trained": sum(parameter.numel() for parameter in segmenter.parameters() if parameter.requires_grad),
        "params_unreached": list(unreached),
        "micro_batch": str(memory.MicroBatch(trainer.micro_batch, -(-share // trainer.micro_batch), tried)),
        "activations": forgotten,
        "batch_norm": str(norms),
        "dtype": str(autocast or torch.float32).removeprefix("torch."),
        "num_processes": processes.num,
    }


def _most_images(trainer: Trainer, config: RunConfig, share: int) -> memory.MicroBatch:
    """The most images of a pass, found by steps that do not count. Raises RunError where not even one fits."""
    rehearsed = replace(trainer, watch=DivergenceWatch(half_precision=True), ema=None, scaler=None, micro_batch=share)

    def attempt(num_images: int) -> None:
        rehearsed.step(made_up_batch(num_images, config.resolution, config.head.num_classes))

    least = 2 if config.recipe.batch_norm == "train" else 1
    with memory.rehearsal(trainer.segmenter, trainer.optimizer):
        batch_norm.train_mode(trainer.segmenter, _AT_REST)
        return memory.find(attempt, share, trainer.device.type, least=least)


def made_up_batch(num_images: int, resolution: int, num_classes: int) -> Batch:
    """Noise with a label map of up to 20 stripes: as many masks as a rich image has."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, 3, resolution, resolution), dtype=torch.uint8, generator=generator)
    stripes = torch.arange(resolution) * min(_NUM_SEGMENTS, num_classes) // resolution
    labels = stripes.to(torch.uint8).expand(num_images, resolution, resolution)
    return Batch(0, 0, images, labels, tuple(range(num_images)), ())


def _wrapped(model: nn.Module, compile_mode: str, device: torch.device, processes: Processes) -> nn.Module:
    """`model` compiled, and averaging its gradients over the processes."""
    if compile_mode != "none":
        model = torch.compile(model, mode=None if compile_mode == "default" else compile_mode)  # type: ignore[assignment]
    if processes.num == 1:
        return model
    # Of speed alone, for some 1 x 1 convolutions; nothing that a user could change.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view")
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def find_device(name: str, processes: Processes) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means for this process: of several each takes its own GPU.

    Raises UsageError for CUDA without a GPU, and for more processes on this machine than GPUs.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name} is unknown, expected auto, cpu or cuda")
    present = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not present):
        return torch.device("cpu")
    if not present:
        raise UsageError("--device cuda, but torch sees no GPU here; try --device cpu, or see `luma doctor`")
    if processes.local_rank >= present:
        raise UsageError(
            f"process {processes.local_rank + 1} of this machine needs a GPU of its own, but {present} are here; "
            f"start torchrun with --nproc_per_node {present}, or give --device cpu"
        )
    device = torch.device("cuda", processes.local_rank)
    torch.cuda.set_device(device)
    return device


def autocast_dtype(dtype: Dtype, device: torch.device) -> torch.dtype | None:
    """The number format of the passes, None for float32. Raises UsageError where the device does not train in it."""
    if dtype == "fp16" and device.type == "cpu":
        raise UsageError("--dtype fp16 trains on a GPU alone; on the CPU use bf16 or fp32")
    found = evaluation_dtype(dtype, device)
    return None if found == torch.float32 else found


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: of torch's allocator on a GPU, of the whole process on a CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else devices.lifetime_peak_bytes()


def _num_workers(settings: Settings, device: torch.device) -> int:
    """Loading processes: as asked; else one beside a CPU that computes, and beside a GPU one per core, at most 8."""
    if settings.num_workers is not None:
        return settings.num_workers
    cores = devices.num_threads({}) // _on_this_machine()
    return max(0, min(1 if device.type == "cpu" else _MOST_WORKERS, cores - 1))


def _on_this_machine() -> int:
    """Training processes that share this machine's cores and memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
