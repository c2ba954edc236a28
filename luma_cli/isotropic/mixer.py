"""What every token mixer is: a module that exchanges information between tokens, in the place of attention.

B batch, N tokens (P prefix tokens, then the h w patches row by row), C channels, H heads of d channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Sequence:
    """The tokens that a model is built for: `grid` patches (rows, columns) after `num_prefix` class tokens."""

    grid: tuple[int, int]
    num_prefix: int = 0

    @property
    def length(self) -> int:
        """Tokens in all."""
        return self.num_prefix + self.grid[0] * self.grid[1]


class TokenMixer(nn.Module):
    """Tokens [B, N, C] -> tokens [B, N, C].

    A subclass takes `(width, num_heads, sequence, **options)`. num_heads: what the LUMA head follows where the mixer
    has heads of its own.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence) -> None:
        super().__init__()
        self.width = width
        self.num_heads = num_heads
        self.sequence = sequence

    def split_heads(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, H, N, d]."""
        batch, length, _ = tokens.shape
        return tokens.reshape(batch, length, self.num_heads, -1).transpose(1, 2)

    def merge_heads(self, heads: Tensor) -> Tensor:
        """[B, H, N, d] -> [B, N, C]."""
        return heads.transpose(1, 2).flatten(2)

    def check_length(self, tokens: Tensor) -> None:
        """Raises ValueError when `tokens` [B, N, C] are not as many as a mixer bound to N was built for."""
        if tokens.shape[1] != self.sequence.length:
            raise ValueError(
                f"{tokens.shape[1]} tokens, but the mixer is built for {self.sequence.length}; "
                "build the model at this img_size, without dropping patches"
            )

    def resampled(self, name: str, value: Tensor) -> Tensor:
        """`value` of the parameter `name`, stored for another sequence, brought to this one's shape.

        Parameters that do not depend on the sequence come back as they are; so does one that cannot be resampled,
        which loading then refuses by its shape.
        """
        return value
