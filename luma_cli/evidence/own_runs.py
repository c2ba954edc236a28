"""The user's own runs with their scores: beside an answer, and as rows of the table of results. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.evidence.evidence import DATASET_TITLES, Evidence

if TYPE_CHECKING:
    from luma_cli.store.runs import ScoredRun


HERE = "measured here"
# What may set a run apart from the usual one of its dataset.
Aspect = Literal["data", "split", "status", "head", "recipe", "weights", "scales", "counting"]
_UNUSUAL = {"running": "still running", "stopped": "stopped early"}


@dataclass(frozen=True, slots=True)
class OwnRun:
    """A run with the score of its last evaluated step.

    dataset, data: identities of what it was trained and evaluated on, e.g. `ade20k`, `ade20k#1a2b3c4d`. recipe: with
    `+` where a setting was changed. usual_recipe: whether it is the shipped one of that name in every setting. head: as
    configured. macs: multiply-adds of the segmenter on one window, params: its parameters, None when not known.
    """

    run_id: str
    status: str
    backbone: str
    timm_name: str
    pretraining: str
    weights: str
    resolution: int
    head: HeadConfig
    dataset: str
    recipe: str
    usual_recipe: bool
    seed: int
    step: int
    data: str
    split: str
    single_scale: bool
    absent: str
    num_images: int
    num_skipped: int
    miou_percent: float
    macs: int | None = None
    params: int | None = None
    started_at: str = ""

    @property
    def architecture(self) -> str:
        """The timm name without its tag; hub and folder names are kept whole."""
        return self.timm_name if ":" in self.timm_name else self.timm_name.split(".")[0]

    @property
    def run_key(self) -> tuple[str, int]:
        """What names the model that was trained: the checkpoint and the size."""
        return self.timm_name, self.resolution

    @property
    def has_default_head(self) -> bool:
        """Whether no option of its head was changed but the number of classes."""
        return self.head == _default_head(self.head.name, self.head.num_classes)

    @property
    def base(self) -> str:
        """Name of the dataset whose card it was evaluated with."""
        return self.data.partition("#")[0]

    @property
    def evidence(self) -> Evidence:
        """The run as one row beside published ones, on a scale that no published row is on."""
        return Evidence(
            id=self.run_id,
            provenance="own run",
            trust="primary",
            dataset=self.base,
            split=self.split,
            head=self.head.name,
            regime="fine-tuned",
            eval="single-scale" if self.single_scale else "ms+flip",
            backbone=self.backbone,
            miou_percent=self.miou_percent,
            height=self.resolution,
            width=self.resolution,
            recipe=HERE,
            schedule=f"{self.step} iters",
            pretraining=self.pretraining,
            timm=self.timm_name,
            architecture=self.architecture,
            in_timm="tag",
            params_m=None if self.params is None else self.params / 1e6,
            params_scope="" if self.params is None else "full model",
            source=f"run {self.run_id}",
        )


@dataclass(frozen=True, slots=True)
class OwnRow:
    """An own run beside an answer. why_not: why it is not ranked with the others, empty when it is on its own scale."""

    run: OwnRun
    why_not: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What the run is, what it scored, and whether it stands in a ranking."""
        run = self.run
        return {
            "run_id": run.run_id,
            "provenance": HERE,
            "backbone": run.backbone,
            "timm_name": run.timm_name,
            "pretraining": run.pretraining or None,
            "weights": run.weights,
            "resolution": run.resolution,
            "head": run.head.name,
            "recipe": run.recipe,
            "trained_on": run.dataset,
            "evaluated_on": run.data,
            "split": run.split,
            "protocol": {"single_scale": run.single_scale, "absent": run.absent, "skipped": run.num_skipped},
            "num_images": run.num_images,
            "started_at": run.started_at or None,
            "step": run.step,
            "seed": run.seed,
            "miou_percent": run.miou_percent,
            "macs": run.macs,
            "gmacs": None if run.macs is None else run.macs / 1e9,
            "params": run.params,
            "ranked": not self.why_not,
            "why_not_ranked": list(self.why_not),
        }


def recipe_for(dataset: str, head: str) -> str:
    """Name of the shipped recipe for a head on the official data.

    >>> recipe_for("ade20k", "eomt")
    'eomt-ade20k'
    """
    return f"eomt-{dataset}" if head == "eomt" else dataset


def differences(run: OwnRun, dataset: str, head: str = "") -> Iterator[tuple[Aspect, str]]:
    """What sets the run apart from the usual one of the dataset: the aspect, and how to say it.

    The usual run: official data, split val, finished, the head (of this name where one is given) as it is by default,
    the shipped recipe unchanged, the weights of the card, the usual single-scale protocol. Which aspects matter is for
    each caller to say.
    """
    if run.dataset.partition("#")[0] != run.base:
        yield "data", f"trained on {run.dataset}"
    elif (run.data, run.dataset) != (dataset, dataset):  # each split has a fingerprint of its own
        yield "data", f"data other than the official {dataset}"
    if run.split != "val":
        yield "split", f"split {run.split}"
    if run.status != "finished":
        yield "status", _UNUSUAL.get(run.status, run.status)
    if head and run.head.name != head:
        yield "head", f"head {run.head.name}"
    elif not run.has_default_head:
        yield "head", f"head {run.head.name} with other options"
    if run.recipe.endswith("+"):
        yield "recipe", f"recipe {run.recipe[:-1]} changed"
    elif run.recipe != recipe_for(dataset, run.head.name):
        yield "recipe", f"recipe {run.recipe}"
    elif not run.usual_recipe:
        yield "recipe", f"recipe {run.recipe} of another version"
    if run.weights != "pretrained":
        yield "weights", f"weights {run.weights}"
    if not run.single_scale:
        yield "scales", "test-time augmentation"
    if run.absent != "skip":
        yield "counting", f"absent classes count {run.absent}"
    if run.num_skipped:
        yield "counting", f"{run.num_skipped} images skipped"


@cache
def _default_head(name: HeadName, num_classes: int) -> HeadConfig:
    return HeadConfig(name=name) if name == "none" else HeadConfig(name=name, num_classes=num_classes)


def from_scored(rows: Iterable[ScoredRun]) -> list[OwnRun]:
    """Runs as the advisor takes them, in the order of the rows."""
    shared = _Settings()
    return [_own(row, shared) for row in rows]


class _Settings:
    """What thousands of runs share: heads, recipes and protocols, each text read once."""

    def __init__(self) -> None:
        self.head = cache(lambda text: HeadConfig(**json.loads(text)))
        self.is_shipped = cache(lambda text: _is_shipped(json.loads(text)))
        self.protocol: Callable[[str], dict[str, Any]] = cache(json.loads)


def _own(row: ScoredRun, shared: _Settings) -> OwnRun:
    protocol = shared.protocol(row.protocol)
    macs = (
        None if row.macs_per_image is None or not row.windows_per_image else row.macs_per_image / row.windows_per_image
    )
    return OwnRun(
        run_id=row.run_id,
        status=row.status,
        backbone=row.backbone,
        timm_name=row.timm_name,
        pretraining=row.pretraining,
        weights=row.weights,
        resolution=row.resolution,
        head=shared.head(row.head_settings),
        dataset=row.dataset,
        recipe=row.recipe,
        usual_recipe=shared.is_shipped(row.recipe_settings),
        seed=row.seed,
        step=row.step,
        data=row.data,
        split=row.split,
        single_scale=not protocol.get("flip") and list(protocol.get("scales", [1.0])) == [1.0],
        absent=protocol.get("absent", "skip"),
        num_images=row.num_images,
        num_skipped=row.num_skipped,
        miou_percent=row.miou_percent,
        macs=None if macs is None else round(macs),
        params=row.params,
        started_at=row.started_at,
    )


def _is_shipped(recipe: dict[str, Any]) -> bool:
    """Whether every setting is that of the shipped recipe of this name."""
    from luma_cli.catalogue.recipes import load_recipe, recipe_names

    if recipe.get("name") not in recipe_names():
        return False
    shipped = json.loads(json.dumps(asdict(load_recipe(recipe["name"]))))
    return all(shipped.get(name) == value for name, value in recipe.items() if name != "source")


def own_rows(runs: Iterable[OwnRun]) -> list[Evidence]:
    """A row for each finished run that was trained and evaluated on the official files of one dataset.

    recipe is `measured here` and what differs from the usual run, which puts the row on a scale of its own. Split and
    scales are columns of their own.
    """
    found = []
    for run in runs:
        different = list(differences(run, run.base))
        if run.base not in DATASET_TITLES or {"data", "status"} & {aspect for aspect, _ in different}:
            continue
        said = ", ".join(text for aspect, text in different if aspect not in ("split", "scales"))
        found.append(replace(run.evidence, recipe=f"{HERE}: {said}" if said else HERE))
    return found
