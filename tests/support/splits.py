"""What `prepare` and `extract` write around the shards: the clip list, and the list of the finished shards."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.common.project import SHARD_PATTERN
from pipeline.manifests.clips import Clip
from pipeline.manifests.prepared import write_prepared_clips
from pipeline.shards.listing import write_shard_list
from pipeline.shards.reader import shard_digest


def finish_split(folder: Path) -> Path:
    """List the shards of a folder as those of a finished split; return the folder."""
    write_shard_list(folder, {path.name: shard_digest(path) for path in sorted(folder.glob(SHARD_PATTERN))})
    return folder


def listed(path: Path, clips: Sequence[Clip], split: str = "train") -> Path:
    """Write a prepared clip list with one split, and return its path."""
    write_prepared_clips(path, {split: clips})
    return path
