"""One backbone as the user named it, resolved: the value that every later step takes. And what its weights may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from luma_cli.errors import WeightsError

Family = Literal["isotropic", "hierarchical", "convolutional", "hybrid", "moe", "unknown"]
Source = Literal["timm", "hf-hub", "local-dir", "import"]


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """A resolved backbone.

    name: as tables show it, e.g. `vit_b.dinov3` (the card's own spelling) or the timm name itself.
    timm_name: for `timm.create_model`, e.g. `vit_base_patch16_dinov3.lvd1689m`, `hf-hub:owner/repo`. architecture, tag:
    its two halves; the tag is empty when none was asked for and none is implied. card, size: the card that describes it
    and its size there; empty for a timm model without a card. pretraining: objective of the tag, e.g. `dinov3`; empty
    when unknown. public_weights: whether weights for this pretraining can be had; without them it is never recommended.
    rule: the card's overrides of the rule table, as in `models/timm_rules.toml`.
    """

    name: str
    timm_name: str
    architecture: str
    tag: str = ""
    card: str = ""
    size: str = ""
    family: Family = "unknown"
    token_mixer: str = ""
    pretraining: str = ""
    licence: str = ""
    public_weights: bool = True
    source: Source = "timm"
    rule: dict[str, Any] = field(default_factory=dict)


# What `--weights` may name besides a file.
_WORDS = ("random", "pretrained")
SOURCES = ("local-dir:", "hf-hub:")
# As timm and transformers write them, whole or as an index of shards.
WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)


def names_a_file(weights: str) -> bool:
    """Whether `weights` is a path, neither a word nor a source."""
    return weights not in _WORDS and not weights.startswith(SOURCES)


def local_file(weights: str) -> Path:
    """The file that `weights` names, itself or by its folder. Raises WeightsError when it is not there."""
    path = Path(weights).expanduser()
    if path.is_dir():
        return weights_in(path)
    if not path.is_file():
        raise WeightsError(
            f"weights {weights!r}: no such file; expected random, pretrained, a file, a folder or local-dir:FOLDER"
        )
    return path


def weights_in(folder: Path) -> Path:
    """The file of weights in a folder of timm, transformers or a run's checkpoint. Raises WeightsError."""
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise WeightsError(
            f"{folder} is a folder without {' or '.join(WEIGHT_FILES[:2])}, whole or in shards; give a file"
        )
    return found


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One architecture, of timm or our own.

    cls: the model class as `module.Class`, the key of the rule table. tags: tag -> licence, only those with weights to
    fetch. default_tag: timm's choice for the bare name, empty without weights. input_size: pixels of its default
    configuration, 0 when it has none.
    """

    architecture: str
    module: str
    cls: str
    tags: Mapping[str, str] = field(default_factory=dict)
    default_tag: str = ""
    input_size: int = 0
