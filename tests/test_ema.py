"""The moving average follows its formula, stands in for the weights for a while, and survives a checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import CheckpointError
from luma_cli.head.segmenter import build
from luma_cli.train.optimiser import Ema


def one(value: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    module = nn.BatchNorm1d(1).to(dtype)
    nn.init.constant_(module.weight, value)
    return module


def test_formula_with_its_warm_up() -> None:
    module = one(0.0)
    ema = Ema(module, 0.3)
    expected = 0.0
    for number, value in enumerate([1.0, 4.0, -2.0, 5.0, 3.0, 1.0]):
        nn.init.constant_(module.weight, value)
        ema.update(module)
        decay = min(0.3, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * value
        with ema.swapped(module):
            assert module.weight.item() == pytest.approx(expected, rel=1e-6)
        assert module.weight.item() == value
    assert ema.num_updates == 6


def stop_inside(ema: Ema, module: nn.Module) -> None:
    with ema.swapped(module):
        raise ValueError(f"stop at {module.weight.item():g}")


def test_own_values_come_back_even_after_an_error() -> None:
    module = one(2.0)
    ema = Ema(module, 0.9)
    nn.init.constant_(module.weight, 7.0)
    with pytest.raises(ValueError, match="stop at 2"):
        stop_inside(ema, module)
    assert module.weight.item() == 7


def test_buffers_and_what_does_not_learn_are_the_model_s_own() -> None:
    module = one(1.0)
    module.bias.requires_grad_(False)
    ema = Ema(module, 0.9)
    module.running_mean.fill_(3.0)
    nn.init.constant_(module.bias, 5.0)
    assert list(ema.state_dict()["averages"]) == ["weight"]
    with ema.swapped(module):
        assert (module.running_mean.item(), module.bias.item()) == (3, 5)


def test_sixteen_bits_are_averaged_in_more() -> None:
    module = one(1.0, torch.bfloat16)
    ema = Ema(module, 0.9999)
    ema.num_updates = 10**6
    nn.init.constant_(module.weight, 2.0)
    for _ in range(100):  # a step of 1e-4 is below the resolution of bfloat16
        ema.update(module)
    assert ema.state_dict()["averages"]["weight"].item() == pytest.approx(2 - 0.9999**100, rel=1e-4)


def test_the_shared_ffn_is_averaged_once() -> None:
    segmenter = build("test_vit", 64, head=HeadConfig(num_queries=5, num_classes=3))
    averages = Ema(segmenter, 0.9).state_dict()["averages"]
    assert list(averages) == [name for name, _ in segmenter.named_parameters()]
    assert len({value.data_ptr() for value in averages.values()}) == len(averages)


def test_a_resumed_average_goes_on_bit_for_bit() -> None:
    module = one(1.0)
    ema = Ema(module, 0.9)
    ema.update(module)
    again = Ema(module, 0.9)
    again.load_state_dict(ema.state_dict())
    nn.init.constant_(module.weight, 2.0)
    ema.update(module)
    assert again.state_dict()["averages"]["weight"].item() == 1  # its own copy
    again.update(module)
    assert torch.equal(ema.state_dict()["averages"]["weight"], again.state_dict()["averages"]["weight"])


def test_another_model_s_average_is_refused() -> None:
    with pytest.raises(CheckpointError, match="averages another model"):
        Ema(nn.Linear(2, 3), 0.9).load_state_dict(Ema(one(1.0), 0.9).state_dict())
