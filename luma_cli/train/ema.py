"""An exponential moving average of what learns, to be evaluated and kept in its place.

EoMT's recipe has none; it is off unless `ema_decay` is set. The decay starts small, so that the average does not carry
the initial weights along: min(decay, (1 + n) / (10 + n)) after n updates, as in TensorFlow's ExponentialMovingAverage
(https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from luma_cli.errors import CheckpointError


class Ema:
    """The average of every parameter that learns, in float32 or better, each once by its name.

    Buffers and parameters that rest are those of the model itself, so that BatchNorm's statistics are the latest.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._averages = {name: _precise(parameter) for name, parameter in _learning(module)}

    def update(self, module: nn.Module) -> None:
        """Take one step towards the parameters of `module`; to be called after every step of the optimiser."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages = list(self._averages.values())
        now = [parameter.detach().to(self._averages[name].dtype) for name, parameter in _learning(module)]
        torch._foreach_lerp_(averages, now, 1 - decay)

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """`module` with the averages as its parameters for a while; afterwards with its own, bit for bit."""
        own = {name: parameter.detach().clone() for name, parameter in _learning(module)}
        try:
            _copy(self._averages, module)
            yield
        finally:
            _copy(own, module)

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """The state dict of `module` with the averages in the place of what learns: a model that can be loaded."""
        return {**module.state_dict(), **self._averages}

    def state_dict(self) -> dict[str, Any]:
        """`num_updates`, and `averages` by parameter name."""
        return {"num_updates": self.num_updates, "averages": dict(self._averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, of which parameters that rest are left out. Raises CheckpointError for another model."""
        given = state["averages"]
        averages = {name: given[name] for name in self._averages if name in given}
        shapes = {name: average.shape for name, average in self._averages.items()}
        if {name: average.shape for name, average in averages.items()} != shapes:
            raise CheckpointError(
                "the checkpoint averages another model, or other parameters of it; resume with the backbone, head and "
                "freeze_backbone that the run was started with"
            )
        self.num_updates = int(state["num_updates"])
        for name, average in self._averages.items():
            average.copy_(averages[name])


def _learning(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that learn, each once, by name."""
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


def _precise(parameter: Tensor) -> Tensor:
    """A copy in at least float32: steps of (1 - decay) would be lost in 16 bits."""
    own = parameter.detach()
    return (own.float() if own.dtype in (torch.float16, torch.bfloat16) else own).clone()


def _copy(values: Mapping[str, Tensor], module: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in _learning(module):
            parameter.copy_(values[name])
