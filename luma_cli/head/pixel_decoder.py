"""Mask2Former's pixel decoder: maps of strides 8, 16 and 32 exchange by deformable attention, that of 4 joins after it.

Sources: arXiv 2112.01527, section 3.2.1 and appendix; deformable attention: arXiv 2010.04159, equation 3. Initial
weights: https://github.com/facebookresearch/Mask2Former, modeling/pixel_decoder/msdeformattn.py.
B batch, Q queries of an attention, M tokens of all levels, D channels, c per head, h heads, L levels, P points
per head and level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, interpolate, linear, relu

from luma_cli.catalogue.mask2former import (
    NUM_HEADS,
    NUM_LEVELS,
    NUM_PIXEL_LAYERS,
    NUM_POINTS,
    PIXEL_FFN_WIDTH,
    WIDTH,
    Mask2FormerPlan,
)

Size = tuple[int, int]  # rows, columns
_NUM_GROUPS = 32
_TEMPERATURE = 10_000
_TINY = 1e-6


def sine_positions(size: Size, like: Tensor) -> Tensor:
    """Sine and cosine of rows, then of columns, of a map of `size`: [H W, 256], on device and in dtype of `like`.

    As DETR's (arXiv 2005.12872), normalised to 2 pi; computed in float32 at least, as 16 bits do not tell rows apart.
    """
    half = WIDTH // 2
    dtype = torch.promote_types(like.dtype, torch.float32)
    steps = torch.arange(half, device=like.device).div(2, rounding_mode="floor").to(dtype)
    period = _TEMPERATURE ** (2 * steps / half)

    def waves(length: int) -> Tensor:
        where = torch.arange(1, length + 1, device=like.device, dtype=dtype)
        angle = (where / (length + _TINY) * 2 * math.pi)[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    rows, columns = waves(size[0])[:, None], waves(size[1])[None]
    both = torch.cat([rows.expand(-1, size[1], -1), columns.expand(size[0], -1, -1)], dim=2)
    return both.flatten(0, 1).to(like.dtype)


def centres(sizes: Sequence[Size], like: Tensor) -> Tensor:
    """Centres (x, y) of all cells of maps of these sizes, as parts of the sides: [M, 2], float32 at least."""
    dtype = torch.promote_types(like.dtype, torch.float32)

    def along(length: int) -> Tensor:
        return (torch.arange(length, device=like.device, dtype=dtype) + 0.5) / length

    grids = []
    for rows, columns in sizes:
        y, x = along(rows)[:, None].expand(-1, columns), along(columns)[None].expand(rows, -1)
        grids.append(torch.stack((x, y), dim=2).flatten(0, 1))
    return torch.cat(grids)


def sample(values: Tensor, sizes: Sequence[Size], positions: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of values read bilinearly, zeros outside of a map.

    values: [B, M, h, c], the cells of maps of `sizes` one after the other. positions: [B, Q, h, L, P, 2], x and y in
    cells of their own level, 0 being the centre of the first. weights: [B, Q, h, L, P]. Gives [B, Q, h c].
    """
    batch, tokens, heads, channels = values.shape
    rows_of, shares = [], []
    start = 0
    for level, (rows, columns) in enumerate(sizes):
        x, y = positions[:, :, :, level, :, 0], positions[:, :, :, level, :, 1]
        left, top = x.detach().floor(), y.detach().floor()
        right_part, lower_part = x - left, y - top
        for across, part_x in ((0, 1 - right_part), (1, right_part)):
            for down, part_y in ((0, 1 - lower_part), (1, lower_part)):
                column, row = left + across, top + down
                inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
                shares.append(weights[:, :, :, level] * part_x * part_y * inside)
                # Clamped as integers: a position that is not finite must give NaN, not a read out of bounds.
                cell = row.int().clamp(0, rows - 1) * columns + column.int().clamp(0, columns - 1)
                rows_of.append(cell + start)
        start += rows * columns
    index, share = torch.cat(rows_of, dim=-1), torch.cat(shares, dim=-1).to(values.dtype)
    own = torch.arange(heads, device=index.device, dtype=index.dtype)[:, None]
    first = torch.arange(batch, device=index.device, dtype=index.dtype)[:, None, None, None] * tokens
    index = (index + first) * heads + own
    table = values.reshape(batch * tokens * heads, channels)
    if torch.compiler.is_exporting():  # exchange formats have no weighted bags, and ONNX no 32-bit indices
        found = (table[index.long()] * share[..., None]).sum(-2)
    else:
        bags = index.flatten(0, 2)
        found = embedding_bag(bags, table, mode="sum", per_sample_weights=share.flatten(0, 2))
    return found.view(batch, -1, heads * channels)


class DeformableAttention(nn.Module):
    """Every query reads a few points near its own place in each level; where and how much it predicts itself."""

    def __init__(self, width: int, value_width: int, num_heads: int, num_levels: int) -> None:
        super().__init__()
        self.num_heads, self.num_levels = num_heads, num_levels
        points = num_heads * num_levels * NUM_POINTS
        self.offsets = nn.Linear(width, 2 * points)
        self.weights = nn.Linear(width, points)
        self.values = nn.Linear(width, value_width)
        self.out = nn.Linear(value_width, width)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Points 1 to P cells away in a direction per head, equal weights."""
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=1)
        directions /= directions.abs().amax(1, keepdim=True)
        steps = torch.arange(1, NUM_POINTS + 1, dtype=torch.float32)
        places = directions[:, None, None] * steps[:, None]
        nn.init.zeros_(self.offsets.weight)
        self.offsets.bias.copy_(places.expand(-1, self.num_levels, -1, -1).flatten())
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.values, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, places: Tensor, tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Queries [B, Q, D] at places [Q, 2] (see `centres`) and tokens [B, M, D] of maps of `sizes` -> [B, Q, D]."""
        batch, num_queries, _ = queries.shape
        values = self.values(tokens)
        values = values.view(batch, tokens.shape[1], self.num_heads, -1)
        by_point = (batch, num_queries, self.num_heads, self.num_levels, NUM_POINTS)
        # In 16 bits a position would be off by half a cell and more.
        with torch.autocast("cpu" if queries.is_meta else queries.device.type, enabled=False):
            exact = queries.to(places.dtype)
            offsets = linear(exact, *(each.to(places.dtype) for each in (self.offsets.weight, self.offsets.bias)))
            weights = linear(exact, *(each.to(places.dtype) for each in (self.weights.weight, self.weights.bias)))
            shares = weights.view(*by_point[:3], -1).softmax(-1).view(by_point)
            offsets = offsets.view(*by_point, 2)
            levels = [
                torch.stack((places[:, 0] * columns, places[:, 1] * rows), dim=1) - 0.5 for rows, columns in sizes
            ]
            positions = torch.stack(levels, dim=1)[:, None, :, None] + offsets
            found = sample(values, sizes, positions, shares)
        update: Tensor = self.out(found)
        return update


class PixelDecoderLayer(nn.Module):
    """Deformable attention among the tokens of all levels and a ReLU FFN, each followed by a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = DeformableAttention(WIDTH, WIDTH, NUM_HEADS, NUM_LEVELS)
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.grow = nn.Linear(WIDTH, PIXEL_FFN_WIDTH)
        self.shrink = nn.Linear(PIXEL_FFN_WIDTH, WIDTH)
        self.ffn_norm = nn.LayerNorm(WIDTH)
        for layer in (self.grow, self.shrink):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, tokens: Tensor, positions: Tensor, places: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Tokens [B, M, 256] and their positions [M, 256] -> [B, M, 256]."""
        tokens = self.attention_norm(tokens + self.attention(tokens + positions, places, tokens, sizes))
        normed: Tensor = self.ffn_norm(tokens + self.shrink(relu(self.grow(tokens))))
        return normed


class PixelDecoder(nn.Module):
    """Six layers over the three coarser levels, then the finest by way of a lateral convolution, as in a pyramid."""

    def __init__(self, plan: Mask2FormerPlan) -> None:
        super().__init__()
        finest, *attended = (each.width for each in plan.maps)
        self.enter = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, WIDTH, 1), nn.GroupNorm(_NUM_GROUPS, WIDTH)) for width in attended[::-1]
        )
        self.levels = nn.Parameter(torch.empty(NUM_LEVELS, WIDTH))
        self.layers = nn.ModuleList(PixelDecoderLayer() for _ in range(NUM_PIXEL_LAYERS))
        self.lateral = nn.Sequential(nn.Conv2d(finest, WIDTH, 1, bias=False), nn.GroupNorm(_NUM_GROUPS, WIDTH))
        smooth = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.smooth = nn.Sequential(smooth, nn.GroupNorm(_NUM_GROUPS, WIDTH), nn.ReLU())
        self.masks = nn.Conv2d(WIDTH, WIDTH, 1)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.levels)
        for part in self.enter.modules():
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)
        for part in (*self.lateral, *self.smooth, self.masks):
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_uniform_(part.weight, a=1)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Maps [B, D, h, w], finest first -> the map of the masks [B, 256, h, w], and three others, coarsest first."""
        entered = [enter(each) for enter, each in zip(self.enter, maps[:0:-1], strict=True)]
        sizes = [(each.shape[2], each.shape[3]) for each in entered]
        tokens = torch.cat([each.flatten(2).transpose(1, 2) for each in entered], dim=1)
        positions = torch.cat([sine_positions(size, tokens) + self.levels[index] for index, size in enumerate(sizes)])
        places = centres(sizes, tokens)
        for layer in self.layers:
            tokens = layer(tokens, positions, places, sizes)
        parts = torch.split(tokens, [rows * columns for rows, columns in sizes], dim=1)
        levels = [part.transpose(1, 2).reshape(-1, WIDTH, *size) for part, size in zip(parts, sizes, strict=True)]
        lateral = self.lateral(maps[0])
        upsampled = interpolate(levels[-1], lateral.shape[2:], mode="bilinear", align_corners=False)
        return self.masks(self.smooth(lateral + upsampled)), levels
