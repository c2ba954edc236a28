"""From what was asked for to the configuration of a run, new or resumed. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luma_cli.catalogue.datasets import load_card
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.recipes import Recipe, default_recipe, load_recipe, recipe_names, with_changes
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import UsageError
from luma_cli.train.run_config import RunConfig

DEFAULT_RESOLUTION = 512
_NO_CHANGE = frozenset({"dtype"})  # settings of the machine, which leave the recipe what it is


@dataclass(frozen=True, slots=True)
class Given:
    """What the user said; None or empty where nothing was.

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

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of range."""
        at_least("--res", self.resolution, 1)
        at_least("--seed", self.seed, 0)
        at_least("--skip-bad", self.skip_bad, 0)


def at_least(option: str, value: int | None, least: int) -> None:
    """Refuse a smaller number, with UsageError; None is one that was not given."""
    if value is not None and value < least:
        raise UsageError(f"{option} is {value}, expected {least} or more")


def new_config(given: Given, num_processes: int = 1) -> RunConfig:
    """The configuration of a new run. Raises UsageError, UnknownName, BadCard, BadRecipe."""
    if given.backbone is None:
        raise UsageError("no backbone is named, expected e.g. luma train vit_b --data ade20k; see `luma list`")
    if given.data is None:
        raise UsageError("no dataset is named, expected --data ade20k, cityscapes or a FILE.toml")
    spec = resolve(given.backbone, imported=bool(given.imports))
    card = load_card(given.data)
    head = HeadConfig(**{**given.head, "num_classes": card.table.num_classes})
    if head.name == "none":
        raise UsageError("--head none predicts nothing, so nothing can be trained; choose luma, eomt or linear")
    recipe, changed = chosen_recipe(given, card.name, head.name)
    return RunConfig(
        backbone=spec.name,
        resolution=given.resolution or DEFAULT_RESOLUTION,
        head=head,
        data=_absolute(given.data, ".toml"),
        recipe=recipe,
        weights=given.weights or default_weights(spec),
        seed=given.seed or 0,
        data_root=given.root or "",
        imports=tuple(_absolute(target, ".py") for target in given.imports),
        recipe_changed=changed,
        micro_batch=micro_batch(recipe.batch, given.accumulate, num_processes),
        grad_checkpoint=bool(given.grad_checkpoint),
        compile=given.compile or "none",
        skip_bad=given.skip_bad or 0,
    )


def resumed_config(given: Given, saved: RunConfig, num_processes: int = 1) -> RunConfig:
    """`saved` with everything that was said again on top of it, to be compared with it. Raises UsageError."""
    wanted: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("weights", "seed", "grad_checkpoint", "compile", "skip_bad", "resolution")
        if getattr(given, name) is not None
    }
    if given.data is not None:
        wanted["data"] = _absolute(given.data, ".toml")
    if given.backbone is not None:
        wanted["backbone"] = resolve(given.backbone, imported=bool(given.imports or saved.imports)).name
    if given.root is not None:
        wanted["data_root"] = given.root
    if given.imports:
        wanted["imports"] = tuple(_absolute(target, ".py") for target in given.imports)
    if given.accumulate is not None:
        wanted["micro_batch"] = micro_batch(saved.recipe.batch, given.accumulate, num_processes)
    if given.head:
        wanted["head"] = replace(saved.head, **given.head)
    if given.recipe or given.changes:
        base = load_recipe(given.recipe) if given.recipe else saved.recipe
        wanted["recipe"] = with_changes(base, given.changes)[0]
    if given.accumulate is not None:
        wanted["micro_batch"] = micro_batch(saved.recipe.batch, given.accumulate, num_processes)
    return replace(saved, **wanted)


def _absolute(target: str, suffix: str) -> str:
    """A file by its whole path, so that the run is found from other folders as well; names as they are."""
    return str(Path(target).expanduser().absolute()) if target.endswith(suffix) else target


def chosen_recipe(given: Given, dataset: str, head: str) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe that was named, else the dataset's own for this head, with the changes; and what they changed."""
    name = given.recipe or default_recipe(dataset, head, recipe_names())
    recipe, changed = with_changes(load_recipe(name), given.changes)
    return recipe, tuple(key for key in changed if key not in _NO_CHANGE)


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
