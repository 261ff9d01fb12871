"""Random streams: every random choice is a pure function of the run's seed and the names of what is chosen.

Nothing draws from a global generator, so adding a choice in one place never moves those of another, and no
generator state has to be saved for data order to survive a restart.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def seed_of(seed: int, *names: object) -> int:
    """A 64-bit seed from the run's seed and a path of names, the same on every machine and Python version."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def ranked(things: Iterable[T], name_of: Callable[[T], str], seed: int, *names: object) -> list[T]:
    """Things in an order drawn from the seed and a path of names; one that is added or removed moves no other.

    name_of: what tells a thing from the others. As `sorted` by `seed_of` of each would be, at a third of its cost.
    """
    start = hashlib.blake2b("\x1f".join([str(seed), *map(str, names)]).encode(), digest_size=8)

    def rank(thing: T) -> bytes:
        digest = start.copy()
        digest.update(f"\x1f{name_of(thing)}".encode())
        return digest.digest()

    return sorted(things, key=rank)


def stream(seed: int, *names: object) -> np.random.Generator:
    """A numpy generator for bulk draws (permutations, samples)."""
    return np.random.Generator(np.random.PCG64(seed_of(seed, *names)))


def some_of(count: int, wanted: int | None, generator: np.random.Generator) -> list[int]:
    """The numbers of `wanted` of `count` things, drawn at random, in order; of all, where that is None or more."""
    if wanted is None or wanted >= count:
        return list(range(count))
    return sorted(generator.permutation(count)[:wanted].tolist())


def python_stream(seed: int, *names: object) -> random.Random:
    """A `random.Random` for many small choices, where numpy's call overhead would dominate."""
    return random.Random(seed_of(seed, *names))
