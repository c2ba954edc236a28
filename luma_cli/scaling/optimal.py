"""How the best size and token count grow with compute: N* ~ C^n and T* ~ C^t.

Minimising E + A N^-a + B T^-b at fixed C(N, T) gives, with the local elasticities p = dlnC/dlnN and q = dlnC/dlnT,

    n = b / (p b + q a),  t = a / (p b + q a),  p n + q t = 1.

p and q are read off exact counts of neighbouring models and change with N and T: q of ViT-B with LUMA's head goes from
1.03 at 224 px to 1.36 at 1024 px. The exponents hold near the point that they are given for, not as one line up to
1024 px.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Elasticity:
    """How C grows at one model: by a factor x^p when N grows by x, by x^q when T does."""

    p: float
    q: float


# C = k N T, what the paper's exponents add up to within rounding.
PLAIN = Elasticity(1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Split:
    """Exponents of the best size and the best token count in compute."""

    size: float
    tokens: float


# N* ~ C^0.83 and T* ~ C^0.2: the abstract's 80/20 rule (arXiv 2607.00687). They add up to 1.03: rounded.
PAPER = Split(0.83, 0.2)
PAPER_SOURCE = "arXiv 2607.00687"


def split(a: float, b: float, elasticity: Elasticity, has_size: bool = True, has_tokens: bool = True) -> Split:
    """The split of a law. Where size (tokens) does not lower the error, everything goes to the other.

    >>> split(0.2, 1.0, PLAIN)
    Split(size=0.8333333333333334, tokens=0.16666666666666669)
    """
    if not has_tokens:
        return Split(1.0 / elasticity.p, 0.0)
    if not has_size:
        return Split(0.0, 1.0 / elasticity.q)
    weight = elasticity.p * b + elasticity.q * a
    return Split(b / weight, a / weight)


def best_point(params: float, tokens: float, factor: float, exponents: Split) -> tuple[float, float]:
    """Size and tokens that `factor` times the compute of (params, tokens) asks for, by the exponents alone."""
    return params * factor**exponents.size, tokens * factor**exponents.tokens
