"""Clip lists: read, validate, write, and find clips that two splits share.

A clip list (``train.csv``, ``test.csv``, …) is a CSV file with a header row and the columns ``clip_id, video, frame,
audio, centre_s, label``, in any order; for separators and encodings, see `pipeline.common.tables`. It may also be a Parquet
file with these columns (``train.parquet``; `pipeline.manifests.parquet`). A clip has either
`video`, or both `frame` and `audio`. Paths are relative to the media root and may not leave it; backslashes are read as
slashes. `centre_s` is the timestamp of the clip's center in seconds from the start of its media; empty means the middle.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

from pipeline.common.errors import EvaluationError, ManifestError
from pipeline.common.files import write_csv
from pipeline.common.tables import parse_decimal, spoiled
from pipeline.manifests.parquet import PARQUET_SUFFIX
from pipeline.manifests.rows import read_rows

TRAIN_SPLIT, VALIDATION_SPLIT, TEST_SPLIT = "train", "validation", "test"
# Clip ids become file names and fixed-length ASCII fields in HDF5.
_CLIP_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of a clip list; see the module docstring. `centre_s` None means the middle of the media."""

    clip_id: str
    video: str = ""
    frame: str = ""
    audio: str = ""
    centre_s: float | None = None
    label: str = ""

    @property
    def media(self) -> tuple[str, ...]:
        """Paths of the clip's files, relative to the media root."""
        return (self.video,) if self.video else (self.frame, self.audio)


CLIP_COLUMNS = tuple(field.name for field in fields(Clip))


def read_clips(path: Path | str) -> list[Clip]:
    """Read a clip list.

    Raises
    ------
    ManifestError
        The file is missing, empty or malformed, or a row is invalid; the message names the file and the line.
    """
    placed = [(where, parse_clip(row, where)) for where, row in read_rows(Path(path), CLIP_COLUMNS)]
    if not placed:
        raise ManifestError(f"{path}: no clips below the header")
    _check_unique(placed)
    return [clip for _, clip in placed]


def clip_list_path(folder: Path, split: str) -> Path:
    """Return the path of a split's clip list in a manifest folder: ``SPLIT.parquet`` if there is one, else ``SPLIT.csv``.

    Raises
    ------
    ManifestError
        There are both.
    """
    path, other = folder / f"{split}.csv", folder / f"{split}{PARQUET_SUFFIX}"
    if path.exists() and other.exists():
        raise ManifestError(f"{folder}: has both {path.name} and {other.name}; remove one of them")
    return other if other.exists() else path


def write_clips(path: Path, clips: Sequence[Clip]) -> None:
    """Write a clip list so that `read_clips` returns it unchanged, except for spaces around a value.

    Raises
    ------
    ManifestError
        `read_clips` would reject the list. Nothing is written then.
    """
    placed = [(f"{path}: clip {clip.clip_id!r}", clip) for clip in clips]
    for where, clip in placed:
        _check_clip(clip, where)
    _check_unique(placed)
    write_csv(path, CLIP_COLUMNS, [clip_row(clip) for clip in clips])


def clip_row(clip: Clip) -> tuple[str, ...]:
    """Return the clip's cells in the order of `CLIP_COLUMNS`."""
    values = (getattr(clip, name) for name in CLIP_COLUMNS)
    return tuple("" if value is None else str(value) for value in values)


def find_leaks(train: Sequence[Clip], test: Sequence[Clip]) -> list[str]:
    """Report the clip ids and media files that two clip lists share.

    Returns
    -------
    list of str
        One line for each shared clip id, then one for each shared file, in the order of `test`. A file is shared even if
        the lists name it in different columns or use different timestamps.
    """
    train_ids = {clip.clip_id for clip in train}
    train_media = {_normal(medium): clip.clip_id for clip in train for medium in clip.media}
    # A dict keeps the order and drops repeated lines.
    lines = {f"clip_id {clip.clip_id!r} is in both": None for clip in test if clip.clip_id in train_ids}
    for clip in test:
        for medium in map(_normal, clip.media):
            if medium in train_media:
                # The timestamp is ignored: two windows of one video are too similar to be independent.
                lines[f"file {medium!r} is in both: clip {train_media[medium]!r} and clip {clip.clip_id!r}"] = None
    return list(lines)


def leaking_clips(train: Sequence[Clip], test: Sequence[Clip]) -> set[str]:
    """Return the ids of the training clips that share their id or a media file with a clip of `test`."""
    ids = {clip.clip_id for clip in test}
    media = {_normal(medium) for clip in test for medium in clip.media}
    return {clip.clip_id for clip in train if clip.clip_id in ids or any(_normal(each) in media for each in clip.media)}


def check_held_out(clip_ids: Sequence[str], train: Sequence[Clip], *, where: str) -> None:
    """Check that none of the clips to be scored was trained on, even as part of another dataset.

    Parameters
    ----------
    clip_ids : sequence of str
        The clips to be scored.
    train : sequence of Clip
    where : str
        The scored clip list, for the message.

    Raises
    ------
    EvaluationError
        A clip id is in both.
    """
    trained = {clip.clip_id for clip in train}
    both = [clip_id for clip_id in clip_ids if clip_id in trained]
    if both:
        raise EvaluationError(
            f"{where}: {len(both)} of {len(clip_ids)} clips have an id that is also in the training set, such as {both[0]!r}; "
            "remove them from the training set, or set `leaks_allowed: true` in the card of the scored dataset, which also "
            "allows its own splits to overlap"
        )


def parse_clip(row: dict[str, str], where: str) -> Clip:
    """Build a clip from the cells of a row. Raises ManifestError; the message starts with `where`."""
    center = row["centre_s"]
    clip = Clip(
        clip_id=row["clip_id"],
        **{name: row[name].replace("\\", "/") for name in ("video", "frame", "audio")},  # lists written on Windows
        centre_s=parse_number(center, "centre_s", where) if center else None,
        label=row["label"],
    )
    _check_clip(clip, where)
    return clip


def parse_number(text: str, column: str, where: str) -> float:
    """Parse a cell as a number. Raises ManifestError; the message starts with `where`."""
    try:
        return parse_decimal(text)
    except ValueError:
        hint = "; use a decimal point, and no separator of thousands" if "," in text else ""
        raise ManifestError(f"{where}: {column} is {text!r}, not a number{hint}") from None


def check_clip_id(clip_id: str, where: str) -> None:
    """Raise ManifestError if a clip id is too long or has other characters than A-Z a-z 0-9 . _ -"""
    if not _CLIP_ID.fullmatch(clip_id):
        raise ManifestError(
            f"{where}: clip_id {clip_id!r} is not 1 to 128 of the characters A-Z a-z 0-9 . _ -{spoiled(clip_id)}"
        )


def media_path(media_root: Path, medium: str) -> Path:
    """Return the path of a clip's media file. Raises ManifestError if it is outside the media root."""
    _check_path(medium, "media")
    return media_root / medium


def _check_clip(clip: Clip, where: str) -> None:
    check_clip_id(clip.clip_id, where)
    if bool(clip.video) == bool(clip.frame or clip.audio) or bool(clip.frame) != bool(clip.audio):
        given = [name for name in ("video", "frame", "audio") if getattr(clip, name)]
        raise ManifestError(f"{where}: set either video, or frame and audio; given: {', '.join(given) or 'none'}")
    for medium in clip.media:
        _check_path(medium, where)
    if clip.centre_s is not None and not (math.isfinite(clip.centre_s) and clip.centre_s >= 0):
        raise ManifestError(
            f"{where}: centre_s is {clip.centre_s}; use seconds from 0, or leave it empty for the middle"
        )


def _check_path(medium: str, where: str) -> None:
    # Checked by POSIX and Windows rules alike, so that a list is valid on every system or on none.
    if "\\" in medium or "\0" in medium:
        raise ManifestError(f"{where}: path {medium!r}: use forward slashes")
    if medium[1:2] == ":":
        raise ManifestError(
            f"{where}: path {medium!r} leaves the media root on Windows, where it names a drive; rename the file"
        )
    if medium.startswith("/") or ".." in medium.split("/"):
        raise ManifestError(f"{where}: path {medium!r} leaves the media root; paths are relative to it, without '..'")


def _check_unique(placed: Sequence[tuple[str, Clip]]) -> None:
    first: dict[str, str] = {}
    for where, clip in placed:
        if clip.clip_id in first:
            raise ManifestError(f"{where}: clip_id {clip.clip_id!r} is already at {first[clip.clip_id]}")
        first[clip.clip_id] = where


def _normal(medium: str) -> str:
    """Normalize a path: ``./a.mp4`` and ``a.mp4`` are the same file, and so are two Unicode forms of a name on macOS."""
    return unicodedata.normalize("NFC", str(PurePosixPath(medium)))
