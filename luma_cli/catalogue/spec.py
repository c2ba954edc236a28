"""One backbone as the user named it, resolved: the value that every later step takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Family = Literal["isotropic", "hierarchical", "convolutional", "hybrid", "moe", "unknown"]
Source = Literal["timm", "hf-hub", "local-dir", "import"]


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """A resolved backbone.

    name: what tables show, e.g. `vit_b.dinov3` (the card's own spelling) or the timm name itself.
    timm_name: what `timm.create_model` takes, e.g. `vit_base_patch16_dinov3.lvd1689m`, `hf-hub:owner/repo`.
    architecture, tag: the two halves of `timm_name`; the tag is empty when none was asked for and none is implied.
    card, size: the card that describes it and its size there; empty for a timm model without a card.
    pretraining: objective of the tag, as named in the cards, e.g. `dinov3`; empty when unknown.
    public_weights: whether weights for this pretraining can be had; without them it is never recommended.
    rule: overrides of the rule table by the card, as in `models/timm_rules.toml`.
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
