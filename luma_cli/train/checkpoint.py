"""A checkpoint: all that is needed to go on as if nothing had happened, in a folder that is whole or not there.

    model.safetensors   the segmenter's state dict; a layer that LUMA shares is there once, as the backbone's
    ema.safetensors     the same with averaged weights, if the run has them
    optimizer.pt        state dicts of the optimiser and of the loss scale
    random.pt           states of torch's generators, one table for each process
    state.json          step, epoch, position in the epoch, best mIoU, ...
    config.json         RunConfig.to_json()
    README.md           what it is, for people
    manifest.json       length and SHA-256 of all these; written last

Order of writing as in torch.distributed.checkpoint: temporary name, fsync of every file, manifest, rename, fsync.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from luma_cli.errors import CheckpointError
from luma_cli.files import honour_umask
from luma_cli.head.segmenter import Segmenter
from luma_cli.store.database import free_bytes
from luma_cli.train import checkpoints
from luma_cli.train.checkpoints import WRITING, damage, read_manifest, versions, write_manifest
from luma_cli.train.config import RunConfig
from luma_cli.train.run_folder import BEST, CONFIG, EMA, LATEST, MODEL, STATE, RunFolder, RunWarning, read_config
from luma_cli.version import __version__

OPTIMIZER = "optimizer.pt"
RANDOM, CARD = "random.pt", "README.md"
SCHEMA = 1
_UNREADABLE = (
    *(OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, RuntimeError),
    *(SafetensorError, pickle.UnpicklingError),
)
_PLAIN = ("run_id", "step", "epoch", "position", "best_miou_percent", "seconds", "extra")

RandomState = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """A training between two steps. `step` steps are done; `position` samples of epoch `epoch` have been used.

    model: state dict of the bare Segmenter (not of a wrapper of DDP or torch.compile); ema: the same with averages in
    the place of what learns. optimizer, scaler: state dicts; scaler is empty without loss scaling. random:
    `random_state` of every process, by rank. best_miou_percent: the best validation so far. seconds: trained so far.
    extra: whatever else must survive, plain values.
    """

    run_id: str
    config: RunConfig
    step: int
    epoch: int
    position: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    ema: Mapping[str, Tensor] | None = None
    scaler: Mapping[str, Any] = field(default_factory=dict)
    random: tuple[RandomState, ...] = ()
    best_miou_percent: float | None = None
    seconds: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: RunFolder, state: CheckpointState, *, keep: int = 2, best: bool = False) -> Path:
    """Writes `state` as the newest checkpoint, as the best one too if `best`, and removes all but the newest `keep`.

    The best one is never removed. When this returns the checkpoint is on disk. Only the holder of the run folder may
    call it. Raises CheckpointError, with every checkpoint there was before untouched, when it cannot be written.
    """
    refuse_shared(state.model)
    folder.checkpoints.mkdir(exist_ok=True)
    checkpoints.clear(folder)
    name = checkpoints.free_name(folder.checkpoints, state.step)
    fresh = folder.checkpoints / f"{WRITING}{name}"
    try:
        fresh.mkdir()
        _write(fresh, state, best)
        write_manifest(fresh, state.run_id, state.step, checkpoints.next_serial(folder), best, versions())
        _sync(fresh)
        path = fresh.rename(folder.checkpoints / name)
        _sync(folder.checkpoints)
        for pointer in (LATEST, BEST) if best else (LATEST,):
            folder.point(pointer, name)
        checkpoints.prune(folder, keep)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, OSError | RuntimeError | SafetensorError):
            raise CheckpointError(_not_written(folder, state, error)) from error
        raise
    return path


def load_checkpoint(path: Path, *, verify: bool = True) -> CheckpointState:
    """The training that the checkpoint `path` holds, on the CPU; with `verify` every byte is checked first.

    Raises CheckpointError when a file is missing, not as it was written, or of another schema.
    """
    manifest = read_manifest(path)
    if verify and (why := damage(path, manifest)):
        raise CheckpointError(f"{path} is damaged: {why}; name another checkpoint")
    try:
        values = json.loads((path / STATE).read_text(encoding="utf-8"))
        if values.pop("schema") != SCHEMA:
            raise CheckpointError(f"{path / STATE} is of another schema; use the luma that wrote it")
        optimizer = _unpickled(path / OPTIMIZER)
        return CheckpointState(
            **values,
            config=read_config(path / CONFIG),
            model=load_file(path / MODEL),
            ema=load_file(path / EMA) if (path / EMA).exists() else None,
            optimizer=optimizer["optimizer"],
            scaler=optimizer["scaler"],
            random=tuple(_unpickled(path / RANDOM)),
        )
    except _UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{path} cannot be read: {reason}; name another checkpoint") from error


def fill(segmenter: Segmenter, state: Mapping[str, Tensor], source: Path) -> None:
    """Loads `state` into `segmenter`. Raises CheckpointError unless every name and shape is the model's own."""
    expected = {name: tuple(tensor.shape) for name, tensor in segmenter.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            pair = (given.get(name, "nothing"), expected.get(name, "no such name"))
            raise CheckpointError(f"{source} is of another model: {name} has {pair[0]}, expected {pair[1]}")
    segmenter.load_state_dict(dict(state), strict=True)


def refuse_shared(model: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError when two names of `model` are one storage: a shared layer is saved where it belongs."""
    seen: dict[int, str] = {}
    for name, tensor in model.items():
        place = tensor.untyped_storage().data_ptr() if tensor.numel() else 0
        if place and place in seen:
            raise CheckpointError(f"{name} and {seen[place]} are one tensor, expected each to be saved once")
        seen[place] = name


def random_state(device: torch.device | str) -> dict[str, Tensor]:
    """States of this process's generators: of the CPU and, of a run on one, of its GPU. On the CPU.

    For what a backbone draws by itself (dropout, stochastic depth): what luma draws is keyed and needs no state.
    """
    device = torch.device(device)
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def restore_random_state(states: Sequence[RandomState], rank: int, device: torch.device | str) -> bool:
    """Sets the generators of process `rank` as they were saved; whether the states of that process were there.

    Where they are not, since there were fewer processes or another kind of device, warns RunWarning and sets nothing.
    """
    device = torch.device(device)
    needed = {"cpu", "cuda"} if device.type == "cuda" else {"cpu"}
    if rank >= len(states) or not needed <= set(states[rank]):
        text = f"the checkpoint has no random state for process {rank} on {device.type}"
        warnings.warn(f"{text}: dropout will draw other numbers than without the break", RunWarning, stacklevel=2)
        return False
    torch.set_rng_state(states[rank]["cpu"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[rank]["cuda"].cpu(), device)
    return True


def _write(folder: Path, state: CheckpointState, best: bool) -> None:
    plain = {"schema": SCHEMA, **{name: getattr(state, name) for name in _PLAIN}}
    texts = {
        CONFIG: json.dumps(state.config.to_json(), indent=1, allow_nan=False) + "\n",
        STATE: json.dumps(plain, indent=1, allow_nan=False) + "\n",
        CARD: _card(state, best),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, tensors in ((MODEL, state.model), (EMA, state.ema)):
        if tensors is not None:
            stored = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(stored, folder / name, {"format": "pt"})
            honour_umask(folder / name)
    _pickle({"optimizer": dict(state.optimizer), "scaler": dict(state.scaler)}, folder / OPTIMIZER)
    _pickle([dict(one) for one in state.random], folder / RANDOM)
    for path in folder.iterdir():
        _sync(path)


def _card(state: CheckpointState, best: bool) -> str:
    config, miou = state.config, state.best_miou_percent
    score = "not validated yet" if miou is None else f"{miou:.2f} mIoU"
    best_text = "The best so far" if best else "Best so far"
    changed = " with changes: " + ", ".join(config.recipe_changed) if config.recipe_changed else ""
    return f"""# {config.backbone} with head {config.head.name} on {config.data}

Step {state.step:,} of run `{state.run_id}`, written by luma {__version__}. {best_text}: {score}.

- backbone `{config.backbone}`, weights at the start: `{config.weights}`
- head `{config.head.name}`, {config.head.num_queries} queries, {config.head.num_classes} classes
- crop and evaluation window {config.resolution} x {config.resolution} pixels
- recipe `{config.recipe.name}`{changed}

`model.safetensors` holds the weights, `config.json` everything that decided them, `manifest.json` the SHA-256 of every
file. From Python: `luma_cli.train.restore.restore("path/to/this/folder")`.
"""


def _pickle(values: Any, path: Path) -> None:
    """torch.save, to a file that is closed even when the disk is full: its own stays open and keeps the space."""
    with path.open("wb", buffering=0) as file:
        torch.save(values, file)


def _unpickled(path: Path) -> Any:
    """What torch.save wrote, if it is nothing but tensors and plain values."""
    return torch.load(path, map_location="cpu", weights_only=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _not_written(folder: RunFolder, state: CheckpointState, error: BaseException) -> str:
    """One line, with what the system said: torch and safetensors report a full disk in words of their own."""
    reason, cause = next(iter(str(error).splitlines()), type(error).__name__), error
    while cause is not None:  # torch raises an error of its own while it handles that of the system
        if isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror
            break
        cause = cause.__context__  # type: ignore[assignment]
    needed = sum(tensor.nbytes for tensor in _tensors([state.model, state.ema, state.optimizer]))
    space = f"about {needed:,} bytes needed, {free_bytes(folder.checkpoints / 'x'):,} free"
    before = folder.pointed(LATEST)
    kept = f"{before} is kept" if before else "there is none yet"
    text = f"the checkpoint of step {state.step} could not be written to {folder.path} ({reason}; {space}); {kept}"
    return f"{text}: free some space and resume with --resume {folder.path}"


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(inner)
