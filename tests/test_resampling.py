"""Tables that timm's filters leave at their size are resampled as timm does elsewhere, and nothing else is touched."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer_sam import get_rel_pos
from torch import Tensor, nn

from luma_cli.backbone.weights import resampled


class Tables(nn.Module):
    """Parameters of these names and shapes."""

    window_size = (4, 4)

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))


def one(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    return resampled(Tables(**{name: shape}), {name: value})[name]


def ramp(side: int) -> Tensor:
    """Positions [1, side * side, 2] that grow evenly from left to right and from top to bottom, 0 to 1."""
    centres = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(centres, centres, indexing="ij"), -1).reshape(1, -1, 2)


def test_positions_keep_their_place_in_the_image() -> None:
    for value, shape in ((ramp(14), (1, 1024, 2)), (ramp(14).reshape(1, 14, 14, 2), (1, 32, 32, 2))):
        found = one("pos_embed", value, shape)
        assert found.shape == shape
        error = (found.reshape(32, 32, 2) - ramp(32).reshape(32, 32, 2)).abs()
        assert error[4:-4, 4:-4].max() < 1e-5  # at the border a bicubic filter sees no neighbours
        assert error.max() < 0.05


def test_relative_positions_are_those_that_timm_makes_while_it_runs() -> None:
    table = torch.randn(127, 8)
    expected = get_rel_pos(32, 32, table)
    found = get_rel_pos(32, 32, one("rel_pos_h", table, (63, 8)))
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore")  # timm's interpolation calls itself slow and deprecated
def test_a_table_of_bias_keeps_its_centre() -> None:
    table = torch.zeros(9, 2)
    table[4] = torch.tensor([1.0, 2.0])
    found = one("relative_position_bias_table", table, (49, 2))
    torch.testing.assert_close(found[24], table[4])
    assert found.shape == (49, 2)


def test_what_has_another_width_or_is_no_table_is_left_to_be_refused() -> None:
    for name, old, new in (
        ("pos_embed", (1, 4, 8), (1, 9, 6)),
        ("pos_embed", (1, 5, 8), (1, 9, 8)),
        ("pos_embed", (1, 4, 8), (1, 3, 3, 8)),
        ("rel_pos_h", (7, 8), (9, 6)),
        ("relative_position_bias_table", (9, 2), (49, 3)),
        ("relative_position_bias_table", (8, 2), (49, 2)),
        ("weight", (4, 8), (9, 8)),
    ):
        value = torch.ones(old)
        assert one(name, value, new) is value
