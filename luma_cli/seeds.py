"""Seeds that depend on what a random number is for, never on ranks, workers or what was drawn before. No torch."""

from __future__ import annotations

import hashlib
import struct

# What a draw is for: the first number of every key.
MATCHING, LOSS, MASKS, ORDER, SAMPLE, MODEL = range(6)


def seed_of(*key: int) -> int:
    """A seed of 63 bits that depends on every number of `key` and on their order.

    >>> seed_of(0, 1) != seed_of(1, 0)
    True
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
