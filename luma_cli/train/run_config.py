"""Everything that decides what a run computes: kept in its folder, its checkpoints and the store. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The effective configuration of a run.

    backbone: as `resolve` takes it, with its tag; imports: modules that register it with timm. weights: as in
    `--weights`. resolution: side of crop and evaluation window in pixels. data: name or file of the dataset card;
    data_root: where it was found; data_fingerprint: of the training split's files. recipe: with every change made to
    it; recipe_changed: names of the settings that differ from the recipe of that name. micro_batch: images per pass of
    a process, at most. compile: mode of torch.compile or `none`. mean, std: of the channels, that images are normalised
    with; empty until the weights are loaded, which say them.
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

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunConfig:
        """The configuration that `to_json` gave these values of."""
        known = {key: value for key, value in values.items() if key != "schema"}
        known["head"] = HeadConfig(**known["head"])
        known["recipe"] = Recipe(**_tuples(known["recipe"]))
        return cls(**_tuples(known))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
