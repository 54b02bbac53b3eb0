"""The list of a split's shards, ``shards.json``. It is written last, so it tells a finished extraction from an unfinished one.

A shard does not know how many shards its split has, so that clips added to the split leave the existing shards as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.common.errors import ShardError
from pipeline.common.files import write_json
from pipeline.common.project import SHARD_PATTERN, shard_path, stage_name
from pipeline.common.reading import read_json

SHARDS_FILE = "shards.json"


def write_shard_list(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the list of a finished split: file name → `shard_digest`, in the order of the clips."""
    write_json(folder / SHARDS_FILE, {"shards": dict(digests)})


def read_shard_list(folder: Path) -> dict[str, str]:
    """Return file name → `shard_digest` for every shard of a finished split.

    Raises
    ------
    ShardError
        There is no list, because the extraction did not finish; or it is damaged.
    """
    path = folder / SHARDS_FILE
    again = f"run `dvc repro {stage_name('extract', folder)}`"
    if not path.exists():
        raise ShardError(f"{folder}: extraction did not finish (no {SHARDS_FILE}); {again}")
    content = read_json(path, ShardError)
    shards = content.get("shards") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(digest, str) for digest in shards.values()):
        raise ShardError(f"{path}: is not a list of shards; {again}")
    return shards


def complete_shards(folder: Path) -> dict[Path, str]:
    """Return path → listed digest of all shards of a finished split, in order.

    Raises
    ------
    ShardError
        The folder has no shards, its extraction did not finish, or its files are not exactly those of ``shards.json``.
    """
    paths = sorted(folder.glob(SHARD_PATTERN))
    again = f"run `dvc repro {stage_name('extract', folder)}`"
    if not paths:
        raise ShardError(f"{folder}: no shards; {again}")
    listed = read_shard_list(folder)
    for index, path in enumerate(paths):
        if path != shard_path(folder, index):
            raise ShardError(f"{folder}: {shard_path(folder, index).name} is missing before {path.name}; {again}")
    if len(paths) != len(listed):
        raise ShardError(f"{folder}: expected {len(listed)} shards, found {len(paths)}; {again}")
    if unlisted := [path for path in paths if path.name not in listed]:
        raise ShardError(f"{unlisted[0]}: is not in {SHARDS_FILE}; {again}")
    return {path: listed[path.name] for path in paths}


def check_listed(path: Path, digest: str, listed: str) -> None:
    """Raise ShardError if a shard is another one than that of ``shards.json``, such as one of another extraction."""
    if digest != listed:
        again = f"run `dvc repro {stage_name('extract', path.parent)}`"
        raise ShardError(f"{path}: is not the shard that {SHARDS_FILE} lists; {again}")
