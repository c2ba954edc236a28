"""How much the same image on a finer grid changes what a mixer gives, as docs/mixers.md states.

A smooth field is shown at 224 pixels (14 x 14 patches) and at 256, 512 and 1024; the mixer's parameters are those of
224, resampled as loading does. What it gives is averaged back to 14 x 14 and compared with what it gave there. Softmax
attention, which only sees more copies of the same keys, changes less than its own input does.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, layer_norm

from luma_cli.isotropic.afno import FourierOperator
from luma_cli.isotropic.fnet import FourierMixing
from luma_cli.isotropic.gfnet import GlobalFilter
from luma_cli.isotropic.mixer import Sequence, TokenMixer
from luma_cli.isotropic.nystrom import NystromAttention
from luma_cli.isotropic.tome import ProportionalAttention

WIDTH = 96


class Softmax(ProportionalAttention):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens)[0]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tokens(side: int, num_prefix: int) -> Tensor:
    field = interpolate(draw(1, WIDTH, 4, 4), (side, side), mode="bicubic")
    patches = layer_norm(field.flatten(2).mT, (WIDTH,))
    return torch.cat([draw(1, num_prefix, WIDTH), patches], dim=1)


def make(mixer_class: type[TokenMixer], side: int, num_prefix: int) -> TokenMixer:
    torch.manual_seed(0)
    mixer = mixer_class(WIDTH, 3, Sequence((side, side), num_prefix)).double()
    for layer in mixer.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)  # scores of about unit variance
    if isinstance(mixer, FourierOperator):
        nn.init.normal_(mixer.w1, std=mixer.w1.shape[2] ** -0.5)  # as large as the input that is added
        nn.init.normal_(mixer.w2, std=mixer.w2.shape[2] ** -0.5)
    return mixer


def as_map(mixed: Tensor, side: int, num_prefix: int) -> Tensor:
    return adaptive_avg_pool2d(mixed[:, num_prefix:].mT.reshape(1, WIDTH, side, side), 14)


@torch.no_grad()
def changes(mixer_class: type[TokenMixer], num_prefix: int) -> list[float]:
    """Relative change of the averaged output at 256, 512 and 1024 pixels."""
    small = make(mixer_class, 14, num_prefix)
    expected = as_map(small(tokens(14, num_prefix)), 14, num_prefix)
    found = []
    for side in (16, 32, 64):
        large = make(mixer_class, side, num_prefix)
        large.load_state_dict({name: large.resampled(name, value) for name, value in small.state_dict().items()})
        mixed = as_map(large(tokens(side, num_prefix)), side, num_prefix)
        found.append(float((mixed - expected).norm() / expected.norm()))
    return found


@pytest.mark.parametrize(
    ("mixer_class", "num_prefix", "expected"),
    [
        (Softmax, 1, [0.08, 0.04, 0.03]),
        (NystromAttention, 1, [0.59, 0.97, 1.05]),
        (FourierMixing, 1, [0.77, 0.96, 0.98]),
        (GlobalFilter, 0, [0.40, 0.97, 1.11]),
        (FourierOperator, 0, [0.13, 0.06, 0.04]),
    ],
)
def test_change_from_224_is_what_the_docs_say(mixer_class, num_prefix, expected):
    assert changes(mixer_class, num_prefix) == pytest.approx(expected, abs=0.006)
