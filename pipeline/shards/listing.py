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


def complete_paths(folder: Path) -> list[Path]:
    """Return the paths of all shards of a finished split, in order.

    Raises
    ------
    ShardError
        The folder has no shards, its extraction did not finish, or its shards are not exactly those of ``shards.json``.
    """
    paths = sorted(folder.glob(SHARD_PATTERN))
    again = f"run `dvc repro {stage_name('extract', folder)}`"
    if not paths:
        raise ShardError(f"{folder}: no shards; {again}")
    n_listed = len(read_shard_list(folder))
    for index, path in enumerate(paths):
        if path != shard_path(folder, index):
            raise ShardError(f"{folder}: {shard_path(folder, index).name} is missing before {path.name}; {again}")
    if len(paths) != n_listed:
        raise ShardError(f"{folder}: expected {n_listed} shards, found {len(paths)}; {again}")
    return paths
