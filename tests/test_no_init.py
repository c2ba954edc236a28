"""Nothing is drawn on the meta device; everywhere else the mode changes no value."""

from __future__ import annotations

import timm
import torch
from torch import nn

from luma_cli.backbone.timm_model import NoInit


def test_a_model_on_meta_has_the_same_shapes():
    with torch.device("meta"):
        plain = timm.create_model("test_vit", num_classes=0)
        with NoInit():
            quick = timm.create_model("test_vit", num_classes=0)
    shapes = {name: value.shape for name, value in plain.state_dict().items()}
    assert {name: value.shape for name, value in quick.state_dict().items()} == shapes
    assert all(parameter.is_meta and parameter.requires_grad for parameter in quick.parameters())


def test_fillings_of_meta_tensors_do_not_run():
    calls: list[str] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(str(func))
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), NoInit(), Watch():
        nn.init.trunc_normal_(torch.empty(3, 3), std=0.02)
    assert [call for call in calls if "empty" not in call] == []


def test_real_weights_are_drawn_as_ever():
    torch.manual_seed(0)
    plain = timm.create_model("test_vit", num_classes=0)
    torch.manual_seed(0)
    with NoInit():
        same = timm.create_model("test_vit", num_classes=0)
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), same.parameters(), strict=True))
