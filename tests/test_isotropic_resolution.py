"""What a mixer does when the same picture comes with more pixels, so that its failures with resolution can be seen.

Every token is repeated r x r times: the same picture in more tokens, and sequence-bound weights are resampled. Softmax
attention would not notice: repeating all keys equally leaves its weighted means as they are.
"""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from torch import Tensor

from luma_cli.catalogue.own import architecture
from luma_cli.isotropic.attention import (
    FactorisedDenseSynthesizer,
    FactorisedRandomSynthesizer,
    HydraAttention,
    LinearAttention,
    LinformerAttention,
    NystromAttention,
    PerformerAttention,
)
from luma_cli.isotropic.entrypoints import register
from luma_cli.isotropic.fourier import FourierMixing, FourierOperator, GlobalFilter
from luma_cli.isotropic.vit import Sequence, TokenMixer

SIDE, WIDTH, HEADS = 14, 96, 3


def mixer_at(kind: type[TokenMixer], side: int) -> TokenMixer:
    """A mixer of random weights without bias, so that its output is what it mixes."""
    torch.manual_seed(0)
    mixer = kind(WIDTH, HEADS, Sequence((side, side))).eval()
    for name, parameter in mixer.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
        elif name.endswith("weight"):
            parameter.data = torch.randn(parameter.shape) / parameter.shape[1] ** 0.5
        elif name in ("w1", "w2"):  # of AFNO
            parameter.data = torch.randn(parameter.shape) / parameter.shape[2] ** 0.5
    return mixer


def repeated(tokens: Tensor, times: int) -> Tensor:
    """[1, N, C] -> [1, r^2 N, C], every patch r x r times."""
    grid = tokens.reshape(1, SIDE, SIDE, WIDTH)
    return grid.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(1, 2)


@torch.no_grad()
def change(kind: type[TokenMixer], times: int) -> tuple[float, float]:
    """Relative change of the output when every token is repeated, and its size relative to before."""
    tokens = torch.randn(1, SIDE * SIDE, WIDTH, generator=torch.Generator().manual_seed(1))
    small, large = mixer_at(kind, SIDE), mixer_at(kind, times * SIDE)
    large.load_state_dict({key: large.resampled(key, value) for key, value in small.state_dict().items()})
    before, after = repeated(small(tokens), times), large(repeated(tokens, times))
    return float((after - before).norm() / before.norm()), float(after.norm() / before.norm())


@pytest.mark.parametrize("kind", [LinearAttention, PerformerAttention])
def test_normalised_sums_do_not_notice(kind: type[TokenMixer]) -> None:
    assert change(kind, 4)[0] < 1e-5


@pytest.mark.parametrize("times", [2, 4])
def test_hydra_grows_with_the_number_of_tokens(times: int) -> None:
    assert change(HydraAttention, times) == pytest.approx((times**2 - 1, times**2), rel=1e-4)


def test_linformer_grows_faster_than_the_number_of_tokens() -> None:
    """Keys grow as well as values, so that the softmax sharpens on top: 16 times the tokens, 100 times the output."""
    assert change(LinformerAttention, 4)[1] == pytest.approx(103, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "expected"), [(FactorisedDenseSynthesizer, 0.29), (FactorisedRandomSynthesizer, 0.82)]
)
def test_synthesizers_look_elsewhere(kind: type[TokenMixer], expected: float) -> None:
    """Their weights name positions, and resampled ones name others."""
    assert change(kind, 4)[0] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "expected", "size"),
    [
        (NystromAttention, 1.38, 0.98),
        (FourierMixing, 1.03, 0.25),
        (GlobalFilter, 1.21, 0.69),
        (FourierOperator, 0.69, 1.01),
    ],
)
def test_what_is_bound_to_places_or_frequencies_changes(kind: type[TokenMixer], expected: float, size: float) -> None:
    assert change(kind, 4) == pytest.approx((expected, size), abs=0.01)


def test_without_its_convolution_nystrom_attention_hardly_notices() -> None:
    assert change(partial(NystromAttention, skip="value"), 4)[0] == pytest.approx(0.09, abs=0.01)  # type: ignore[arg-type]


GROWTH = 4097 - 197  # tokens of 1024 pixels and of 224


@pytest.mark.parametrize(
    ("kind", "per_block"),
    [
        ("hydra_vit", 0),
        ("linear_vit", 0),
        ("performer_vit", 0),
        ("linformer_vit", 2 * 256 * GROWTH),
        ("synthesizer_vit", 12 * (64 - 14 + 65 - 15) * (768 + 1)),
        ("synthesizer_fr_vit", 12 * 2 * 8 * GROWTH),
        ("nystrom_vit", 0),
        ("fnet_vit", 0),
        ("gfnet_vit", 768 * 2 * (64 * 33 - 14 * 8)),
        ("afno_vit", 0),
        ("tome_vit", 0),
    ],
)
def test_parameters_grow_from_224_to_1024_pixels_by_their_closed_form(kind: str, per_block: int) -> None:
    register()
    numbers = []
    for side in (224, 1024):
        with torch.device("meta"):
            model = timm.create_model(architecture(kind, "base"), img_size=side, num_classes=0)
        numbers.append(sum(parameter.numel() for parameter in model.parameters()))
    assert numbers[1] - numbers[0] == 768 * GROWTH + 12 * per_block
