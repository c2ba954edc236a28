"""Weights of another resolution, patch size or layout, brought to the model that is to take them."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from luma_cli.isotropic.experts.wtf import wtf_switch
from luma_cli.isotropic.mixer import TokenMixer
from luma_cli.isotropic.plain_vit import without_class_position
from luma_cli.isotropic.wtf import from_wtf


def convert(state: dict[str, Tensor], model: VisionTransformer) -> dict[str, Tensor]:
    """`state` with patch and position embeddings resampled as timm does, and each mixer's parameters as it says.

    Names of the WTF benchmark's code become ours first. Weights of a plain ViT are weights for token merging too.
    """
    state = without_class_position(from_wtf(wtf_switch(state), model), model.patch_embed.num_patches)
    converted: dict[str, Tensor] = checkpoint_filter_fn(state, model)
    for name, module in model.named_modules():
        if isinstance(module, TokenMixer):
            own = [key for key in converted if key.startswith(f"{name}.")]
            converted |= {key: module.resampled(key.removeprefix(f"{name}."), converted[key]) for key in own}
    return converted
