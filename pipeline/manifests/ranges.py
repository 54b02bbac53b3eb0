"""Divide a clip list into ranges of rows, so that a task of a large job carries a place in the list instead of its clips.

The list is read row by row, and memory does not depend on its length. A range is read from its own place, not from the
beginning of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.manifests.clips import CLIP_COLUMNS, Clip, parse_clip
from pipeline.manifests.rows import Rows, open_rows

# Finding a place takes longer than reading a row, so it is not done for every row of another split.
_ROWS_PER_PLACE = 1_000


@dataclass(frozen=True)
class ClipRange:
    """Consecutive clips of a list.

    Attributes
    ----------
    path : Path
    split : str or None
        Only the clips of this split, for the prepared list of all splits (``clips.csv``); None for a list without splits.
    place : tuple of int
        Where to start reading.
    n_clips : int
    """

    path: Path
    split: str | None
    place: tuple[int, int]
    n_clips: int

    def read(self) -> tuple[Clip, ...]:
        """Read the clips.

        Raises
        ------
        ManifestError
            The list is missing, was changed so that the range does not fit, or has an invalid row.
        """
        with open_rows(self.path, _columns(self.split)) as rows:
            rows.table.go_to(self.place)
            clips = tuple(islice(_clips(rows, self.split), self.n_clips))
        if len(clips) < self.n_clips:
            raise ManifestError(f"{self.path}: was shortened while it was in use; run again")
        return clips


def clip_ranges(path: Path, n_clips: int, *, split: str | None = None) -> Iterator[tuple[ClipRange, tuple[Clip, ...]]]:
    """Divide a clip list into ranges.

    Clip ids are not compared with each other; `pipeline.manifests.clips.read_clips` does that.

    Parameters
    ----------
    path : Path
        A clip list, or with `split` the prepared clips of all splits.
    n_clips : int > 0
        Clips per range; the last range may have fewer.
    split : str, optional

    Yields
    ------
    ClipRange
    tuple of Clip
        What its `read` returns.

    Raises
    ------
    ManifestError
        The list is missing or malformed.
    """
    with open_rows(path, _columns(split)) as rows:
        place = rows.table.place()
        if split is not None:
            place = _first_place(rows, split)
            rows.table.go_to(place)
        clips = _clips(rows, split)
        while part := tuple(islice(clips, n_clips)):
            yield ClipRange(path, split, place, len(part)), part
            place = rows.table.place()


def _columns(split: str | None) -> tuple[str, ...]:
    return CLIP_COLUMNS if split is None else ("split", *CLIP_COLUMNS)


def _first_place(rows: Rows, split: str) -> tuple[int, int]:
    """Return a place shortly before the first row of a split."""
    place = rows.table.place()
    for number, (_, row) in enumerate(rows):
        if row["split"] == split:
            break
        if number % _ROWS_PER_PLACE == 0:
            place = rows.table.place()
    return place


def _clips(rows: Rows, split: str | None) -> Iterator[Clip]:
    return (parse_clip(row, where) for where, row in rows if split is None or row["split"] == split)
