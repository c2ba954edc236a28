"""What a training is asked to do, and the configuration that follows from it. Imports no torch.

`Given` is what the user said, `RunConfig` everything that decides what a run computes, `Settings` how it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from luma_cli.catalogue.datasets import (
    DatasetCard,
    LabelTable,
    card_names,
    card_values,
    class_difference,
    load_card,
    read_card,
)
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.recipes import Recipe, default_recipe, load_recipe, recipe_names, with_changes
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import LumaError, RunError, UsageError

SCHEMA = 1
DEFAULT_RESOLUTION = 512
_NO_CHANGE = frozenset({"dtype"})  # a setting of the machine, which leaves the recipe what it is

_LASTING = ("keep", "checkpoint_steps", "tensorboard")  # settings that a resumed run keeps
# How a run is computed, not what: these may change between sessions, and then the last bits of its numbers may.
_COMPUTED = ("micro_batch", "grad_checkpoint", "compile", "imports", "skip_bad")
# Where the data is and how things are called: these may change and nothing else does.
_CALLED = (
    "data",
    "data_root",
    "init.weights",
    "recipe_changed",
    "recipe.name",
    "recipe.source",
    "recipe.eval_every_epochs",
)
_LATER = ("card", "init", "session")
_UNCOMPARED = frozenset({"schema", "recipe_changed", "recipe.source"})


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The effective configuration of a run, kept in its folder, its checkpoints and the store.

    backbone: as `resolve` takes it, with its tag; imports: modules that register it with timm. weights: as in
    `--weights`. resolution: side of crop and evaluation window in pixels. data: name or file of the dataset card, and
    card: what it said, see `card_values`, empty in a run of an older luma; data_root: where the data was found;
    data_fingerprint: of the training split's files. recipe: with every change made to
    it; recipe_changed: names of the settings that differ from the recipe of that name. micro_batch: images per pass of
    a process, at most. compile: mode of torch.compile or `none`. mean, std: per channel, for normalising images; empty
    until the weights are loaded, which know them. init: the trained segmenter that it started from, `weights` (file),
    `sha256` and `class_layer` (whether that was kept), or nothing. session: what was said of `Settings` that last.
    norm_eps: of the backbone's LayerNorms where an imported model says it, else 0.
    """

    backbone: str
    resolution: int
    head: HeadConfig
    data: str
    recipe: Recipe
    weights: str = "pretrained"
    seed: int = 0
    data_root: str = ""
    data_fingerprint: str = ""
    imports: tuple[str, ...] = ()
    recipe_changed: tuple[str, ...] = ()
    micro_batch: int = 0
    grad_checkpoint: bool = False
    compile: str = "none"
    skip_bad: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    init: Mapping[str, Any] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)
    norm_eps: float = 0.0

    @property
    def dataset(self) -> DatasetCard:
        """The dataset that the run began with; an older run's is read from where it was. Raises BadCard."""
        if not self.card:
            return load_card(self.data)
        return read_card(Path(self.data), self.data in card_names(), self.card)

    @property
    def classes(self) -> LabelTable:
        """What the model predicts. Raises BadCard where an older run's card is gone."""
        return self.dataset.table

    def dataset_now(self) -> DatasetCard:
        """The dataset as its card says now, which may have changed; the run's own where the file is gone."""
        is_there = not self.card or self.data in card_names() or Path(self.data).is_file()
        return load_card(self.data) if is_there else self.dataset

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a file; without those of `_LATER` that say nothing, as an older luma wrote it."""
        values = asdict(self)
        return {"schema": SCHEMA, **{key: each for key, each in values.items() if each or key not in _LATER}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunConfig:
        """The configuration that `to_json` gave these values of."""
        known = {key: value for key, value in values.items() if key != "schema"}
        known["head"] = HeadConfig(**known["head"])
        known["recipe"] = Recipe(**_tuples(known["recipe"]))
        return cls(**_tuples(known))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@dataclass(frozen=True, slots=True)
class Given:
    """What the user said; None or empty where nothing was. init: the trained segmenter to start from.

    head: options of the head by field name, `name` among them. changes: `key=value` of the recipe. accumulate: passes
    per step and process.
    """

    backbone: str | None = None
    data: str | None = None
    root: str | None = None
    resolution: int | None = None
    weights: str | None = None
    recipe: str | None = None
    changes: tuple[str, ...] = ()
    head: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    accumulate: int | None = None
    grad_checkpoint: bool | None = None
    compile: str | None = None
    skip_bad: int | None = None
    imports: tuple[str, ...] = ()
    init: str | None = None
    class_layer: bool = True

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of range."""
        if not self.class_layer and self.init is None:
            raise UsageError("--no-class-layer is about the segmenter that --init names; add --init RUN")
        if self.init is not None and self.weights is not None:
            raise UsageError("--init and --weights are both given, expected one of them; leave one out")
        _at_least("--res", self.resolution, 1)
        _at_least("--seed", self.seed, 0)
        _at_least("--skip-bad", self.skip_bad, 0)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is carried out; nothing here changes what it computes.

    num_workers: None for as many as the CPU has cores for. keep: checkpoints besides the best, None for 2.
    checkpoint_steps: None for an epoch, at most 1000. resume: the run to go on with, empty for a new one.
    """

    device: str = "auto"
    num_workers: int | None = None
    out: Path | None = None
    keep: int | None = None
    checkpoint_steps: int | None = None
    tensorboard: bool = False
    resume: str = ""
    database: Path | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of range."""
        _at_least("--workers", self.num_workers, 0)
        _at_least("--keep", self.keep, 1)
        _at_least("--checkpoint-steps", self.checkpoint_steps, 1)

    @property
    def lasting(self) -> dict[str, Any]:
        """What was said and is kept for the run's later sessions."""
        return {name: value for name in _LASTING if (value := getattr(self, name))}


def _at_least(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UsageError(f"{option} is {value}, expected {least} or more")


def new_config(given: Given, num_processes: int = 1, start: RunConfig | None = None) -> RunConfig:
    """The configuration of a new run, which starts from a segmenter of the configuration `start`.

    Raises UsageError, UnknownName, BadCard, BadRecipe.
    """
    if start is not None:
        given = _as_started(given, with_imports(start, given.imports))
    if given.backbone is None:
        raise UsageError("no backbone is named, expected e.g. luma train vit_b --data ade20k; see `luma list`")
    if given.data is None:
        raise UsageError("no dataset is named, expected --data ade20k, cityscapes or a FILE.toml")
    spec = resolve(given.backbone, imported=bool(given.imports))
    card = load_card(given.data)
    head = HeadConfig(**{**given.head, "num_classes": card.table.num_classes})
    if head.name == "none":
        raise UsageError(
            "--head none predicts nothing, so nothing can be trained; choose luma, eomt, mask2former or linear"
        )
    name = given.recipe or default_recipe(card.name, head.name, recipe_names(), spec.timm_name)
    recipe, changed = with_changes(load_recipe(name), given.changes)
    return RunConfig(
        backbone=spec.name,
        resolution=given.resolution or DEFAULT_RESOLUTION,
        head=head,
        data=_absolute(given.data, ".toml"),
        card=card_values(card),
        recipe=recipe,
        weights=given.weights or default_weights(spec),
        seed=given.seed or 0,
        data_root=given.root or "",
        imports=tuple(_absolute(target, ".py") for target in given.imports),
        recipe_changed=tuple(key for key in changed if key not in _NO_CHANGE),
        micro_batch=micro_batch(recipe.batch, given.accumulate, num_processes),
        grad_checkpoint=bool(given.grad_checkpoint),
        compile=given.compile or "none",
        skip_bad=given.skip_bad or 0,
    )


def _as_started(given: Given, start: RunConfig) -> Given:
    """`given` with backbone, head, modules and resolution of `start` where nothing is said, else held against it."""
    pairs = [(f"head.{key}", getattr(start.head, key), now) for key, now in given.head.items()]
    if given.backbone and not _same("backbone", start.backbone, given.backbone):
        pairs.append(("backbone", start.backbone, given.backbone))
    for name, was, now in pairs:
        if was != now:
            raise UsageError(f"--init has {name} {was}, not {now}; leave it out, or start without --init")
    table = load_card(given.data).table if given.data else start.classes
    said = class_difference(start.classes, table, values=False)
    if given.class_layer and sorted(start.classes.names) != sorted(table.names):
        raise UsageError(f"the classes differ from those of --init: {said}; add --no-class-layer to learn them anew")
    head = {key: value for key, value in asdict(start.head).items() if key != "num_classes"}
    return replace(
        given,
        backbone=given.backbone or start.backbone,
        head=head,
        imports=start.imports,
        resolution=given.resolution or start.resolution,
    )


def resumed_config(given: Given, saved: RunConfig, num_processes: int = 1) -> RunConfig:
    """`saved` with everything that was said again on top of it, to be compared with it. Raises UsageError."""
    asked = with_imports(saved, given.imports)
    if given.init is not None:
        raise UsageError("--init starts a new run and --resume goes on with one; leave one of them out")
    wanted: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("weights", "seed", "grad_checkpoint", "compile", "skip_bad", "resolution")
        if getattr(given, name) is not None
    }
    card = load_card(given.data) if given.data is not None else saved.dataset_now()
    if given.data is not None:
        wanted["data"] = card.name if card.shipped else card.file
    if saved.card:
        wanted["card"] = card_values(card) if Path(card.file).is_file() else saved.card
    if given.backbone is not None:
        wanted["backbone"] = resolve(given.backbone, imported=bool(asked.imports)).name
    if given.root is not None:
        wanted["data_root"] = given.root
    if given.accumulate is not None:
        wanted["micro_batch"] = micro_batch(saved.recipe.batch, given.accumulate, num_processes)
    if given.head:
        wanted["head"] = replace(saved.head, **given.head)
    if given.recipe or given.changes:
        base = load_recipe(given.recipe) if given.recipe else saved.recipe
        if sets_no_warmup(given):  # they may have been cut to fit
            warmups = ("warmup_head_steps", "warmup_backbone_steps")
            base = replace(base, **{name: getattr(saved.recipe, name) for name in warmups})
        wanted["recipe"] = with_changes(base, given.changes)[0]
    return replace(asked, **wanted)


def sets_no_warmup(given: Given) -> bool:
    """Whether the warm-ups are those of a shipped recipe, which may be cut to fit a short training."""
    is_shipped = given.recipe is None or given.recipe in recipe_names()
    return is_shipped and not any(change.strip().startswith("warmup_") for change in given.changes)


def with_imports(saved: RunConfig, imports: Sequence[str]) -> RunConfig:
    """`saved` with the modules that the user names in place of those that its file names: a file runs no code.

    Raises UsageError where modules are needed and none is named.
    """
    if saved.imports and not imports:
        modules = ", ".join(saved.imports)
        raise UsageError(
            f"its backbone needs {modules}, which is code; add --import {saved.imports[0]} if you trust it"
        )
    return replace(saved, imports=tuple(_absolute(target, ".py") for target in imports) or saved.imports)


def _absolute(target: str, suffix: str) -> str:
    """A file by its whole path, so that the run is found from other folders too; a name is left alone."""
    return str(Path(target).expanduser().absolute()) if target.endswith(suffix) else target


def default_weights(spec: BackboneSpec) -> str:
    """The card's pretraining; random for timm's tiny test models alone, which are made for trying things out."""
    return "random" if spec.architecture.startswith("test_") else "pretrained"


def micro_batch(batch: int, accumulate: int | None, num_processes: int) -> int:
    """Images per pass of a process for so many passes per step; 0, to be found out, where nothing was said.

    Raises UsageError for more passes than images.
    """
    if accumulate is None:
        return 0
    images = -(-batch // num_processes)
    if not 1 <= accumulate <= images:
        shared = f"{batch} images, {num_processes} process(es)"
        raise UsageError(f"--accumulate {accumulate}, expected 1 to {images}: {shared}")
    return -(-images // accumulate)


def check_same(saved: RunConfig, asked: RunConfig) -> tuple[str, ...]:
    """Differences that make the resumed run not equal bit for bit, one line each; empty for none.

    Raises RunError, naming both values, for a difference in what is learnt: backbone, weights, resolution, head,
    classes, recipe or seed. Where the data is and what it is called may change: its files have a fingerprint.
    """
    one, other = (dict(_flat(asdict(config))) for config in (saved, asked))
    different = [name for name in one if name not in _CALLED and not _same(name, one[name], other.get(name))]
    told = {name: f"{name} was {_short(one[name])} and is {_short(other[name])}" for name in different}
    refused = [told[name] for name in different if name not in _COMPUTED]
    if said := class_difference(saved.classes, asked.classes) if saved.card != asked.card else "":
        refused.append(said)
    if refused:
        text = f"this run cannot go on as asked: {'; '.join(refused)}"
        raise RunError(f"{text}; leave out what differs, or start a new run without --resume")
    return tuple(told.values())


def continued(saved: RunConfig, asked: RunConfig) -> RunConfig:
    """`saved` with what may change between its sessions, as asked for now; `check_same` has refused all else."""
    recipe = replace(saved.recipe, eval_every_epochs=asked.recipe.eval_every_epochs)
    return replace(
        saved,
        recipe=recipe,
        **{name: getattr(asked, name) for name in ("data", "card", "data_root", "session", *_COMPUTED)},
    )


def _same(name: str, one: Any, other: Any) -> bool:
    """Whether two values mean the same: names of one backbone, or a fingerprint that is not known yet."""
    if one == other or (name == "data_fingerprint" and not (one and other)):
        return True
    return name == "backbone" and _timm_name(one) == _timm_name(other)


def _timm_name(backbone: str) -> str:
    try:
        return resolve(backbone, imported=True).timm_name
    except LumaError:
        return backbone


def _short(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return f"{text[:12]}...'" if len(text) > 64 and isinstance(value, str) else text


def config_differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Dotted name -> value by run, of everything in which the configurations (as in config.json) are not all alike."""
    flat = {run_id: dict(_flat(config)) for run_id, config in configs.items()}
    names = list(dict.fromkeys(name for values in flat.values() for name in values if name not in _UNCOMPARED))
    found = {name: {run_id: values.get(name) for run_id, values in flat.items()} for name in names}
    return {name: values for name, values in found.items() if len({repr(value) for value in values.values()}) > 1}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name in ("card", "session"):  # classes are compared by `class_difference`
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
