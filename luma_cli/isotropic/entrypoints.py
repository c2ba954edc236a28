"""Makes luma's own architectures known to timm: `timm.create_model("hydra_vit_base_patch16_224", img_size=512)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model

from luma_cli.catalogue.own import INPUT_SIZE, KINDS, PATCH_SIZE, SIZES, OwnSize, architecture
from luma_cli.isotropic.checkpoint import convert
from luma_cli.isotropic.hydra import HydraAttention
from luma_cli.isotropic.vit import IsotropicViT

_CONFIG = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, INPUT_SIZE, INPUT_SIZE),
    "pool_size": None,
    "fixed_input_size": True,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}
default_cfgs = generate_default_cfgs({architecture(kind, size): _CONFIG for kind in KINDS for size in SIZES})


def kinds() -> Mapping[str, Mapping[str, Any]]:
    """Arguments of IsotropicViT for each of `catalogue.own.KINDS`."""
    return {"hydra_vit": {"mixer": HydraAttention}}


def register() -> None:
    """Register every own architecture with timm; those that are registered already stay."""
    for kind, arguments in kinds().items():
        for name, size in SIZES.items():
            if not is_model(architecture(kind, name)):
                register_model(_entrypoint(architecture(kind, name), size, arguments))


def _entrypoint(name: str, size: OwnSize, arguments: Mapping[str, Any]) -> Callable[..., Any]:
    def create(pretrained: bool = False, **options: Any) -> IsotropicViT:
        shape = {"patch_size": PATCH_SIZE, "embed_dim": size.width, "depth": size.depth, "num_heads": size.num_heads}
        model: IsotropicViT = build_model_with_cfg(
            IsotropicViT,
            name,
            pretrained,
            pretrained_filter_fn=convert,
            feature_cfg={"out_indices": 3, "feature_cls": "getter"},
            **{**shape, **arguments, **options},
        )
        return model

    create.__name__ = create.__qualname__ = name
    return create
