"""Small backbones of several shapes, on which LUMA's options read more than the map."""

from __future__ import annotations

from luma_cli.catalogue.spec import BackboneSpec


def small(name: str, architecture: str, **arguments: object) -> BackboneSpec:
    return BackboneSpec(name, architecture, architecture, rule={"arguments": arguments})


MODELS = {
    "swin": small("swin", "swin_tiny_patch4_window7_224", embed_dim=16, depths=[1, 1, 2, 2], num_heads=[1, 1, 2, 2]),
    "convnext": small("convnext", "convnext_tiny", depths=[1, 1, 2, 1], dims=[8, 12, 16, 24]),
    "dinov2": small("dinov2", "vit_small_patch14_reg4_dinov2", embed_dim=32, depth=3, num_heads=2),
    "hiera": small("hiera", "hiera_tiny_224", embed_dim=16, stages=[1, 1, 1, 2]),
}
