"""Keyed random generators, and evenly spaced choices where nothing should be random.

Every generator is seeded from a key such as (seed, stage, epoch, purpose). A resumed run therefore draws the same numbers
as an uninterrupted one, and no generator state has to be stored in a checkpoint.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(*key: int | str) -> int:
    """Return a seed in [0, 2⁶³) derived from the key; different keys give unrelated seeds."""
    # A separator keeps ("a", "bc") and ("ab", "c") apart. Python's hash() would differ between processes.
    digest = hashlib.sha256("\0".join(map(str, key)).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch accepts signed 64-bit seeds


def generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator seeded from the key."""
    import torch  # takes a second, and choices do not need it

    return torch.Generator().manual_seed(derive_seed(*key))


def evenly_spaced(n: int, count: int) -> list[int]:
    """Return up to `count` evenly spaced indices of 0 … n-1, including both ends.

    Used wherever a few of many items are shown or kept: it is deterministic, so examples cannot be cherry-picked.
    """
    return sorted({int(i) for i in np.rint(np.linspace(0, n - 1, min(n, count)))})
