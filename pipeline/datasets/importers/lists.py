"""What all importers share: reading id lists, checking boxes, drawing subsets.

Conventions: boxes are corners ``(x0, y0, x1, y1)``, origin top left. Which numbers a file holds (corners or sizes,
pixels or fractions) follows from its format and is checked against the range; it is never guessed. An id list is a text
or CSV file whose first column is the id; CRLF line ends and a byte-order mark are read past.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.common.errors import ManifestError

SLUG = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HEADERS = {"clip_id", "id", "file", "video", "youtube_id", "ytid"}
_LISTED_SUFFIXES = {".jpg", ".jpeg", ".png", ".wav", ".flac", ".mp3", ".mp4", ".mkv", ".webm"}
_CORRUPT = 1000.0  # so many frame sides away from the frame, a number is noise and no coordinate
_SCHEMA_SHARE, _SCHEMA_COUNT = 0.25, 5  # from so many faulty boxes on, the file is of another format


@dataclass(frozen=True)
class IdList:
    """Ids of one list in its order, each once, and those that stood there more than once."""

    ids: list[str]
    repeated: list[str]


@dataclass(frozen=True)
class BoxFault:
    """A box that is left out, and all that is wrong with it."""

    clip_id: str
    box: tuple[str, ...]  # as text, since the numbers may be infinite or no numbers at all
    faults: tuple[str, ...]  # from `box_faults`, one for each thing that is wrong


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without byte-order mark. Raises ManifestError if it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise ManifestError(f"{path}: is a folder, expected a file") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ManifestError if it is missing or no JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise ManifestError(f"{path}: not usable: nested too deeply") from None


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read a CSV file as ``(line number, stripped cells)``, blank lines left out."""
    rows = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        cells = [(rows.line_num, [cell.strip() for cell in row]) for row in rows]
    except csv.Error as error:
        raise ManifestError(f"{path}:{rows.line_num}: not CSV: {error}") from None
    return [(line, row) for line, row in cells if any(row)]


def read_ids(path: Path, *, pattern: re.Pattern[str] = SLUG, max_columns: int = 2) -> IdList:
    """Read a list of ids: the first column, without folder and media suffix, header skipped if there is one.

    Parameters
    ----------
    path : Path
    pattern : re.Pattern
        What an id looks like as a whole.
    max_columns : int
        Public test lists carry a number beside the id; more columns are another kind of file.

    Raises
    ------
    ManifestError
        A malformed id or too many columns (with file and line), or no id at all.
    """
    rows = read_rows(path)
    if rows and rows[0][1][0].lower() in _HEADERS:
        rows = rows[1:]
    ids: list[str] = []
    for line, cells in rows:
        if len(cells) > max_columns:
            raise ManifestError(
                f"{path}:{line}: {len(cells)} columns, expected an id and at most {max_columns - 1} more"
            )
        ids.append(checked_id(bare_id(cells[0]), f"{path}:{line}", pattern=pattern))
    if not ids:
        raise ManifestError(f"{path}: holds no ids")
    return distinct(ids)


def distinct(ids: Iterable[str]) -> IdList:
    """Keep the first of equal ids, and remember which ones came again."""
    seen: dict[str, int] = {}
    for clip_id in ids:
        seen[clip_id] = seen.get(clip_id, 0) + 1
    return IdList(list(seen), [clip_id for clip_id, count in seen.items() if count > 1])


def bare_id(text: str) -> str:
    """Strip folders and a media suffix: lists in the wild write ``./Data/0/123.jpg`` or ``123.wav`` for 123."""
    name = PurePosixPath(text.replace("\\", "/"))
    return name.stem if name.suffix.lower() in _LISTED_SUFFIXES else name.name


def checked_id(clip_id: str, where: str, *, pattern: re.Pattern[str] = SLUG) -> str:
    """Return `clip_id` if it is a slug and fits the dataset's pattern; ManifestError names it and the place if not."""
    if SLUG.fullmatch(clip_id) and pattern.fullmatch(clip_id) and clip_id not in {".", ".."}:
        return clip_id
    raise ManifestError(f"{where}: {clip_id!r} is not an id of this dataset (expected {pattern.pattern})")


def box_faults(box: Sequence[Any], *, low: float, high: float) -> list[str]:
    """Say all that is wrong with corners ``(x0, y0, x1, y1)``; an empty list for a good box.

    Parameters
    ----------
    box : sequence
        What the file holds, not yet known to be four numbers.
    low, high : float
        Smallest and largest coordinate inside the frame, in the file's own unit.

    Returns
    -------
    list of str
        ``corrupt coordinate`` once for each such coordinate; ``width <= 0``, ``height <= 0``, ``outside the frame``.
    """
    if len(box) != 4 or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in box):
        return ["not four numbers"]
    reach = _CORRUPT * (high - low)
    # So written that it holds for NaN as well; math.isfinite would refuse a whole number too large for a float.
    faults = ["corrupt coordinate" for v in box if not abs(v) <= reach]
    if box[2] <= box[0]:
        faults.append("width <= 0")
    if box[3] <= box[1]:
        faults.append("height <= 0")
    if not faults and any(not low <= v <= high for v in box):
        faults.append("outside the frame")
    return faults


def refuse_other_schema(faults: Sequence[BoxFault], n_boxes: int, path: Path) -> None:
    """Raise ManifestError if so many boxes are faulty that the file does not hold corners in the expected unit.

    Sizes ``[x, y, width, height]`` read as corners give many boxes without width or height; pixels read as fractions
    lie outside the frame. Single faulty boxes, as official files have them, are left to the report.
    """
    if len(faults) < _SCHEMA_COUNT or len(faults) < _SCHEMA_SHARE * n_boxes:
        return
    kinds = [fault for box in faults for fault in box.faults]
    kind = max(sorted(set(kinds)), key=kinds.count)
    guess = "another unit than this format's" if kind == "outside the frame" else "[x, y, width, height]"
    raise ManifestError(
        f"{path}: {len(faults)} of {n_boxes} boxes are unusable as [x0, y0, x1, y1], most often {kind!r} "
        f"(first: clip {faults[0].clip_id}, {', '.join(faults[0].box)}): the file looks like {guess}; convert it first"
    )


def ranked(ids: Iterable[str], seed: int) -> list[str]:
    """Order ids by a seeded hash: the first n are a random subset of size n.

    The rank of an id depends on nothing but the seed and the id. So a smaller subset lies within a larger one, and a
    clip whose media are missing on one machine does not change which of the others are drawn.
    """
    return sorted(ids, key=lambda clip_id: hashlib.sha256(f"{seed}/{clip_id}".encode()).digest())


def drawn(ids: Sequence[str], size: int | None, seed: int) -> list[str]:
    """Return a seeded subset of `size` ids in the order of the list; all of them if `size` is None."""
    if size is None:
        return list(ids)
    if size > len(ids):
        raise ManifestError(f"a training set of {size} was asked for, but only {len(ids)} clips are usable")
    chosen = set(ranked(ids, seed)[:size])
    return [clip_id for clip_id in ids if clip_id in chosen]


def shortened(items: Sequence[str], limit: int = 10) -> str:
    """Join the first items of a list and say how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
