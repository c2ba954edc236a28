"""Weights of another resolution or patch size, brought to the model that is to take them."""

from __future__ import annotations

from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from luma_cli.isotropic.mixer import TokenMixer
from luma_cli.isotropic.vit import IsotropicViT


def convert(state: dict[str, Tensor], model: IsotropicViT) -> dict[str, Tensor]:
    """`state` with patch and position embeddings resampled as timm does, and each mixer's parameters as it says."""
    converted: dict[str, Tensor] = checkpoint_filter_fn(state, model)
    for name, module in model.named_modules():
        if isinstance(module, TokenMixer):
            own = [key for key in converted if key.startswith(f"{name}.")]
            converted |= {key: module.resampled(key.removeprefix(f"{name}."), converted[key]) for key in own}
    return converted
