"""Makes luma's own architectures known to timm: `timm.create_model("hydra_vit_base_patch16_224", img_size=512)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from timm.models.vision_transformer import VisionTransformer

from luma_cli.catalogue.own import INPUT_SIZE, KINDS, PATCH_SIZE, SIZES, OwnSize, architecture
from luma_cli.isotropic.attention import (
    FactorisedDenseSynthesizer,
    FactorisedRandomSynthesizer,
    HydraAttention,
    LinearAttention,
    LinformerAttention,
    NystromAttention,
    PerformerAttention,
)
from luma_cli.isotropic.checkpoints import convert
from luma_cli.isotropic.fourier import FourierMixing, FourierOperator, GlobalFilter
from luma_cli.isotropic.merging import ToMeViT
from luma_cli.isotropic.mixtures import ExpertViT, SoftExpertBlock, SoftMlp, SwitchMlp, VMoeMlp
from luma_cli.isotropic.vit import LAYER_SCALE, IsotropicViT, TokenMixer

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
# Arguments of the kinds that mix the patch grid and nothing else.
_GRID_ONLY = MappingProxyType({"class_token": False, "global_pool": "avg"})
Kind = tuple[type[VisionTransformer], Mapping[str, Any]]


def kinds() -> dict[str, Kind]:
    """The class and its arguments for each of `catalogue.own.KINDS`."""
    mixers: dict[str, tuple[type[TokenMixer], Mapping[str, Any]]] = {
        "hydra_vit": (HydraAttention, {}),
        "linear_vit": (LinearAttention, {}),
        "performer_vit": (PerformerAttention, {}),
        "linformer_vit": (LinformerAttention, {}),
        "synthesizer_vit": (FactorisedDenseSynthesizer, {}),
        "synthesizer_fr_vit": (FactorisedRandomSynthesizer, {}),
        "nystrom_vit": (NystromAttention, {}),
        "fnet_vit": (FourierMixing, {"global_pool": "avg"}),
        "gfnet_vit": (GlobalFilter, _GRID_ONLY),
        "afno_vit": (FourierOperator, _GRID_ONLY),
    }
    return {
        **{kind: (IsotropicViT, {"mixer": mixer, **options}) for kind, (mixer, options) in mixers.items()},
        "tome_vit": (ToMeViT, {}),
        "switch_vit": (ExpertViT, {"experts": SwitchMlp, "placement": "every", "init_values": LAYER_SCALE}),
        "vmoe_vit": (ExpertViT, {"experts": VMoeMlp, "placement": "every_2"}),
        "softmoe_vit": (ExpertViT, {"experts": SoftMlp, "placement": "second_half", "block": SoftExpertBlock}),
    }


def register() -> None:
    """Register every own architecture with timm; those that are registered already stay."""
    for kind, (model_class, arguments) in kinds().items():
        for name, size in SIZES.items():
            if not is_model(architecture(kind, name)):
                register_model(_entrypoint(architecture(kind, name), size, model_class, arguments))


def _entrypoint(
    name: str, size: OwnSize, model_class: type[VisionTransformer], arguments: Mapping[str, Any]
) -> Callable[..., Any]:
    def create(pretrained: bool = False, **options: Any) -> VisionTransformer:
        shape = {"patch_size": PATCH_SIZE, "embed_dim": size.width, "depth": size.depth, "num_heads": size.num_heads}
        model: VisionTransformer = build_model_with_cfg(
            model_class,
            name,
            pretrained,
            pretrained_filter_fn=convert,
            feature_cfg={"out_indices": 3, "feature_cls": "getter"},
            **{**shape, **arguments, **options},
        )
        return model

    create.__name__ = create.__qualname__ = name
    return create
