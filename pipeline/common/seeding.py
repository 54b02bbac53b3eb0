"""Every random draw comes from a generator that is named, not from one that is carried along.

A generator's state follows from words such as (seed, stage, epoch, purpose) alone. A run that is killed and resumed
therefore draws what an uninterrupted one draws, without any state of a generator in its checkpoint.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*words: int | str) -> int:
    """Return a seed in [0, 2⁶³) that follows from the words; any other words give an unrelated one."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*words: int | str) -> torch.Generator:
    """Return a generator on the CPU that is seeded by the words."""
    return torch.Generator().manual_seed(derive_seed(*words))
