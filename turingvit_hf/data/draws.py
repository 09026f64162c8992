# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Random draws that depend on what they are for and not on what was drawn before, and permutations without a table."""

import hashlib
import random


NUM_ROUNDS = 6


def draws(*key: object) -> random.Random:
    """Return a generator of random numbers for this key: the same in every process and on every platform."""
    return random.Random("/".join(map(str, key)))


def seed_of(*key: object) -> int:
    """Return an integer in [0, 2^63) for this key."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest(), "big") >> 1


def permuted(position: int, size: int, key: int) -> int:
    """Return where the permutation number `key` of 0 … size - 1 sends `position`, without building it.

    A Feistel network permutes the numbers of an even count of bits; a number that it sends to `size` or above is sent
    on until it falls below (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Memory does not grow
    with `size`, and any position can be asked for.

    Raises:
        ValueError: if `position` is not in [0, size).
    """
    if not 0 <= position < size:
        raise ValueError(f"{position=} is not in [0, {size})")
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for number in range(NUM_ROUNDS):
            left, right = right, left ^ (_mix(right ^ key, number) & mask)
        position = left << half | right
        if position < size:
            return position


def _mix(value: int, number: int) -> int:
    """Return 64 well-mixed bits: the finalizer of splitmix64 (Steele, Lea and Flood, 2014)."""
    value = (value + (number + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
