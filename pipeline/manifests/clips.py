"""Clip lists and boxes: parse, validate, write, and find what two splits share.

A clip list (``train.csv``, ``test.csv``, ...) has the columns ``clip_id, video, frame, audio, centre_s, label``: either
`video`, or `frame` and `audio`; paths are relative to the media root, with forward slashes, and may not leave it;
`centre_s` is in seconds from the start of the media, empty for its middle. Boxes (``test_boxes.csv``) have the columns
``clip_id, source, annotator, sounding, x0, y0, x1, y1``: corners in fractions of the full frame, origin top left, and
`sounding` 0 or 1. Files are UTF-8 CSV with a header row; the columns may come in any order. Boxes given as corner and
size are refused, never converted by a guess.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.common.errors import ManifestError
from pipeline.common.files import write_csv

TRAIN_SPLIT, VALIDATION_SPLIT, TEST_SPLIT = "train", "validation", "test"
_CLIP_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True)
class Clip:
    """One row of a clip list; see the module's conventions. `centre_s` None means the middle of the media."""

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


@dataclass(frozen=True)
class Box:
    """One annotated object in one clip's frame: corners in fractions of the full frame, origin top left."""

    clip_id: str
    source: str
    annotator: str
    sounding: bool
    x0: float
    y0: float
    x1: float
    y1: float


CLIP_COLUMNS = tuple(field.name for field in fields(Clip))
BOX_COLUMNS = tuple(field.name for field in fields(Box))


def read_clips(path: Path) -> list[Clip]:
    """Read a clip list.

    Raises
    ------
    ManifestError
        The file is missing, empty or malformed, or a row breaks one of the module's conventions; the message names
        the file and the line.
    """
    placed = [(where, parse_clip(row, where)) for where, row in read_rows(path, CLIP_COLUMNS)]
    if not placed:
        raise ManifestError(f"{path}: no clips below the header")
    _refuse_duplicates(placed)
    return [clip for _, clip in placed]


def write_clips(path: Path, clips: Sequence[Clip]) -> None:
    """Write a clip list that `read_clips` gives back, but for spaces around a value.

    Raises
    ------
    ManifestError
        For what `read_clips` would refuse; nothing is written then.
    """
    placed = [(f"{path}: clip {clip.clip_id!r}", clip) for clip in clips]
    for where, clip in placed:
        _check_clip(clip, where)
    _refuse_duplicates(placed)
    write_csv(path, CLIP_COLUMNS, [clip_row(clip) for clip in clips])


def clip_row(clip: Clip) -> tuple[str, ...]:
    """Return the clip's cells in the order of `CLIP_COLUMNS`."""
    return tuple("" if value is None else str(value) for value in astuple(clip))


def read_boxes(path: Path) -> list[Box]:
    """Read a file of boxes, which may have none.

    Raises
    ------
    ManifestError
        As for `read_clips`; also for a box that is not finite, not within the frame, or without area.
    """
    return [_parse_box(row, where) for where, row in read_rows(path, BOX_COLUMNS)]


def write_boxes(path: Path, boxes: Sequence[Box]) -> None:
    """Write boxes that `read_boxes` gives back unchanged. Raises ManifestError for what it would refuse."""
    for box in boxes:
        _check_box(box, f"{path}: clip {box.clip_id!r}")
    write_csv(path, BOX_COLUMNS, [list((asdict(box) | {"sounding": int(box.sounding)}).values()) for box in boxes])


def find_leaks(train: Sequence[Clip], test: Sequence[Clip]) -> list[str]:
    """Say which clip ids and which media files are in both of two clip lists.

    Returns
    -------
    list of str
        One line for each clip id, then for each file, that both lists hold, in the order of `test`. A file counts
        whatever the column it stands in, and whatever the time it is cut at.
    """
    train_ids = {clip.clip_id for clip in train}
    train_media = {_normal(medium): clip.clip_id for clip in train for medium in clip.media}
    lines = {f"clip_id {clip.clip_id!r} is in both": None for clip in test if clip.clip_id in train_ids}
    for clip in test:
        for medium in map(_normal, clip.media):
            if medium in train_media:
                lines[f"file {medium!r} is in both: clip {train_media[medium]!r} and clip {clip.clip_id!r}"] = None
    return list(lines)


def leaking_clips(train: Sequence[Clip], test: Sequence[Clip]) -> set[str]:
    """Return the ids of the training clips whose id or one of whose media files is in `test` as well."""
    ids = {clip.clip_id for clip in test}
    media = {_normal(medium) for clip in test for medium in clip.media}
    return {clip.clip_id for clip in train if clip.clip_id in ids or any(_normal(each) in media for each in clip.media)}


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a CSV file that has exactly `columns`, in any order.

    A byte-order mark, CRLF line ends and blank lines are tolerated; spaces around a value are dropped.

    Yields
    ------
    where : str
        ``FILE:LINE`` of the row, for messages.
    row : dict
        Value of each column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, columns, path)
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise ManifestError(f"{where}: {len(cells)} values where the header names {len(header)} columns")
                yield where, dict(zip(header, map(str.strip, cells), strict=True))
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise ManifestError(f"{path}: not readable as CSV: {error}") from None


def parse_clip(row: dict[str, str], where: str) -> Clip:
    """Make a clip from the cells of a row. Raises ManifestError, its message beginning with `where`."""
    center = row["centre_s"]
    clip = Clip(
        clip_id=row["clip_id"],
        video=row["video"],
        frame=row["frame"],
        audio=row["audio"],
        centre_s=_number(center, "centre_s", where) if center else None,
        label=row["label"],
    )
    _check_clip(clip, where)
    return clip


def _parse_box(row: dict[str, str], where: str) -> Box:
    if row["sounding"] not in ("0", "1"):
        raise ManifestError(f"{where}: sounding is {row['sounding']!r}; write 0 or 1")
    x0, y0, x1, y1 = (_number(row[name], name, where) for name in ("x0", "y0", "x1", "y1"))
    box = Box(row["clip_id"], row["source"], row["annotator"], row["sounding"] == "1", x0, y0, x1, y1)
    _check_box(box, where)
    return box


def _check_header(header: list[str], columns: Sequence[str], path: Path) -> None:
    missing = [name for name in columns if name not in header]
    unknown = [name for name in header if name not in columns]
    twice = sorted({name for name in header if header.count(name) > 1})
    for problem, names in (("missing", missing), ("unknown", unknown), ("repeated", twice)):
        if names:
            raise ManifestError(f"{path}:1: {problem} column {', '.join(names)}; the columns are {', '.join(columns)}")


def _check_clip(clip: Clip, where: str) -> None:
    _check_clip_id(clip.clip_id, where)
    if bool(clip.video) == bool(clip.frame or clip.audio) or bool(clip.frame) != bool(clip.audio):
        given = [name for name in ("video", "frame", "audio") if getattr(clip, name)]
        raise ManifestError(f"{where}: give either video, or frame and audio; given: {', '.join(given) or 'none'}")
    for medium in clip.media:
        _check_path(medium, where)
    if clip.centre_s is not None and not (math.isfinite(clip.centre_s) and clip.centre_s >= 0):
        raise ManifestError(f"{where}: centre_s is {clip.centre_s}; give seconds from 0, or nothing for the middle")


def _check_clip_id(clip_id: str, where: str) -> None:
    if not _CLIP_ID.fullmatch(clip_id):
        raise ManifestError(f"{where}: clip_id {clip_id!r} is not 1 to 128 of the characters A-Z a-z 0-9 . _ -")


def media_path(media_root: Path, medium: str) -> Path:
    """Return where a clip's file lies. Raises ManifestError for a path that leaves the media root."""
    _check_path(medium, "media")
    return media_root / medium


def _check_path(medium: str, where: str) -> None:
    if "\\" in medium or "\0" in medium:
        raise ManifestError(f"{where}: path {medium!r}: write it with forward slashes")
    if PurePosixPath(medium).is_absolute() or PureWindowsPath(medium).drive or ".." in PurePosixPath(medium).parts:
        raise ManifestError(f"{where}: path {medium!r} leaves the media root; paths are relative to it, without '..'")


def _check_box(box: Box, where: str) -> None:
    _check_clip_id(box.clip_id, where)
    corners = (box.x0, box.y0, box.x1, box.y1)
    if not all(map(math.isfinite, corners)):
        raise ManifestError(f"{where}: box {corners} is not finite")
    if not all(0 <= value <= 1 for value in corners):
        raise ManifestError(f"{where}: box {corners} is not within the frame; corners are fractions of it, 0 to 1")
    if box.x1 <= box.x0 or box.y1 <= box.y0:
        hint = "its corners are reversed, or it has no area"
        if box.x0 + box.x1 <= 1 and box.y0 + box.y1 <= 1:
            hint = "it looks like xywh; write the corners x0, y0, x1, y1"
        raise ManifestError(f"{where}: box {corners} does not have x0 < x1 and y0 < y1: {hint}")


def _refuse_duplicates(placed: Sequence[tuple[str, Clip]]) -> None:
    first: dict[str, str] = {}
    for where, clip in placed:
        if clip.clip_id in first:
            raise ManifestError(f"{where}: clip_id {clip.clip_id!r} is already at {first[clip.clip_id]}")
        first[clip.clip_id] = where


def _number(text: str, column: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ManifestError(f"{where}: {column} is {text!r}, not a number") from None


def _normal(medium: str) -> str:
    return str(PurePosixPath(medium))
