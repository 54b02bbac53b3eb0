"""Divide a split into tasks, one for each shard, without holding its clips in memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.common.errors import ManifestError
from pipeline.common.files import fingerprint
from pipeline.manifests.clips import Clip, clip_row
from pipeline.manifests.ranges import ClipRange, clip_ranges


def plan_shards(path: Path, split: str, clips_per_shard: int) -> list[tuple[ClipRange, str]]:
    """Return for each shard its clips, and their digest.

    The list is read once. Memory grows by 8 bytes per clip, and by less than 1 kB per shard.

    Parameters
    ----------
    path : Path
        ``clips.csv`` of the dataset.
    split : str
    clips_per_shard : int > 0

    Raises
    ------
    ManifestError
        The list is missing or malformed, has no clips of the split, or contains a clip id twice.
    """
    if not path.exists():
        raise ManifestError(f"{path}: no such file; run `dvc repro prepare`")
    planned: list[tuple[ClipRange, str]] = []
    hashes = array("q")
    for part, clips in clip_ranges(path, clips_per_shard, split=split):
        planned.append((part, clips_digest(clips)))
        hashes.extend(hash(clip.clip_id) for clip in clips)
    if not planned:
        raise ManifestError(f"{path}: no clips of the split {split!r}; check its name, or run `dvc repro prepare`")
    ordered = np.sort(np.frombuffer(hashes, dtype=np.int64))
    alike = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if alike:
        _check_unique(path, split, alike)
    return planned


def clips_digest(clips: Sequence[Clip]) -> str:
    """Return what identifies the clips of a shard and their order."""
    return fingerprint([clip_row(clip) for clip in clips])


def _check_unique(path: Path, split: str, alike: set[int]) -> None:
    """Raise ManifestError if clips whose ids have the same hash also have the same id."""
    seen: set[str] = set()
    for _, clips in clip_ranges(path, 1000, split=split):
        for clip_id in (clip.clip_id for clip in clips if hash(clip.clip_id) in alike):
            if clip_id in seen:
                raise ManifestError(f"{path}: clip_id {clip_id!r} of the split {split!r} is repeated")
            seen.add(clip_id)
