"""Non-negative least squares for three columns, in closed form and for many problems at once.

The best non-negative solution is the best of the seven unconstrained ones on a subset of the columns that happens to
be non-negative, so trying them all is exact (Lawson and Hanson 1974, ch. 23, without the pivoting that many columns
need).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

NUM_COLUMNS = 3
_PAIRS = ((0, 1), (0, 2), (1, 2))
# A subset whose Gram determinant is this small against its diagonal is collinear and left to its parts.
_COLLINEAR = 1e-13


def solve(gram: Array, moment: Array) -> tuple[Array, Array]:
    """Coefficients [..., 3] >= 0 that minimise b'Gb - 2b'm, and the gain b'm [...]: the fall of the sum of squares.

    gram: [..., 3, 3], moment: [..., 3]; leading dimensions broadcast.
    """
    import numpy as np

    shape = np.broadcast_shapes(gram.shape[:-1], moment.shape)
    best, gain = np.zeros(shape), np.zeros(shape[:-1])
    for subset, solution in _subsets(gram, moment):
        worth = np.zeros(shape[:-1])
        for column, value in zip(subset, solution, strict=True):
            worth = worth + value * moment[..., column]
        better = np.all([value >= 0 for value in solution], axis=0) & np.isfinite(worth) & (worth > gain)
        gain = np.where(better, worth, gain)
        for column in range(NUM_COLUMNS):
            value = solution[subset.index(column)] if column in subset else np.zeros(())
            best[..., column] = np.where(better, value, best[..., column])
    return best, gain


def _subsets(gram: Array, moment: Array) -> list[tuple[tuple[int, ...], tuple[Array, ...]]]:
    """Every subset of the columns with its unconstrained solution; NaN where the subset is collinear."""
    found: list[tuple[tuple[int, ...], tuple[Array, ...]]] = []
    for column in range(NUM_COLUMNS):
        found.append(((column,), (moment[..., column] / gram[..., column, column],)))
    for i, j in _PAIRS:
        found.append(((i, j), _pair(gram, moment, i, j)))
    found.append(((0, 1, 2), _triple(gram, moment)))
    return found


def _pair(gram: Array, moment: Array, i: int, j: int) -> tuple[Array, Array]:
    first, second, cross = gram[..., i, i], gram[..., j, j], gram[..., i, j]
    determinant = _sound(first * second - cross**2, first * second)
    return (
        (second * moment[..., i] - cross * moment[..., j]) / determinant,
        (first * moment[..., j] - cross * moment[..., i]) / determinant,
    )


def _triple(gram: Array, moment: Array) -> tuple[Array, Array, Array]:
    """Cramer's rule with the adjugate of the symmetric matrix."""
    a, b, c = gram[..., 0, 0], gram[..., 0, 1], gram[..., 0, 2]
    d, e, f = gram[..., 1, 1], gram[..., 1, 2], gram[..., 2, 2]
    aa, ab, ac = d * f - e * e, c * e - b * f, b * e - c * d
    bb, bc, cc = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = _sound(a * aa + b * ab + c * ac, a * d * f)
    x, y, z = moment[..., 0], moment[..., 1], moment[..., 2]
    return (
        (aa * x + ab * y + ac * z) / determinant,
        (ab * x + bb * y + bc * z) / determinant,
        (ac * x + bc * y + cc * z) / determinant,
    )


def _sound(determinant: Array, scale: Array) -> Array:
    import numpy as np

    return np.where(determinant > _COLLINEAR * scale, determinant, np.nan)
