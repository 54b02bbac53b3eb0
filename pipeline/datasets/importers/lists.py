"""Reads the text, CSV and JSON lists of published datasets, and draws seeded subsets of ids.

Conventions: an id list is a text or CSV file whose first column is the id. CRLF line endings and a byte-order mark are
accepted.
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


@dataclass(frozen=True)
class IdList:
    """The distinct ids of a list, in its order, and the ids that occur more than once."""

    ids: list[str]
    repeated: list[str]


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte-order mark. Raises ManifestError if it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise ManifestError(f"{path}: is a folder, expected a file") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ManifestError if it is missing or not JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise ManifestError(f"{path}: JSON nested too deeply") from None


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read a CSV file as ``(line number, stripped cells)``, skipping blank lines."""
    rows = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        cells = [(rows.line_num, [cell.strip() for cell in row]) for row in rows]
    except csv.Error as error:
        raise ManifestError(f"{path}:{rows.line_num}: not CSV: {error}") from None
    return [(line, row) for line, row in cells if any(row)]


def read_ids(path: Path, *, pattern: re.Pattern[str] = SLUG, max_columns: int = 2) -> IdList:
    """Read a list of ids: the first column, without folders and media suffix. A header is skipped.

    Parameters
    ----------
    path : Path
    pattern : re.Pattern
        Must match the whole id.
    max_columns : int
        Public test lists have a number next to the id. More columns mean that it is another kind of file.

    Raises
    ------
    ManifestError
        There is a malformed id or a line with too many columns (file and line are named), or there are no ids.
    """
    rows = read_rows(path)
    # Public lists come with and without a header, and none of these names is an id.
    if rows and rows[0][1][0].lower() in _HEADERS:
        rows = rows[1:]
    ids: list[str] = []
    for line, cells in rows:
        if len(cells) > max_columns:
            raise ManifestError(
                f"{path}:{line}: {len(cells)} columns; expected an id and at most {max_columns - 1} more"
            )
        ids.append(checked_id(bare_id(cells[0]), f"{path}:{line}", pattern=pattern))
    if not ids:
        raise ManifestError(f"{path}: contains no ids")
    return distinct(ids)


def distinct(ids: Iterable[str]) -> IdList:
    """Remove duplicate ids, and record which ones were duplicated."""
    seen: dict[str, int] = {}
    for clip_id in ids:
        seen[clip_id] = seen.get(clip_id, 0) + 1
    return IdList(list(seen), [clip_id for clip_id, count in seen.items() if count > 1])


def bare_id(text: str) -> str:
    """Strip folders and a media suffix: public lists contain ``./Data/0/123.jpg`` or ``123.wav`` for 123."""
    name = PurePosixPath(text.replace("\\", "/"))
    # Only known suffixes, because ids can contain dots.
    return name.stem if name.suffix.lower() in _LISTED_SUFFIXES else name.name


def checked_id(clip_id: str, where: str, *, pattern: re.Pattern[str] = SLUG) -> str:
    """Return `clip_id` if it is a slug and matches `pattern`. Otherwise raises ManifestError, with `where`."""
    # Ids become file names, so "." and ".." are excluded although they match SLUG.
    if SLUG.fullmatch(clip_id) and pattern.fullmatch(clip_id) and clip_id not in {".", ".."}:
        return clip_id
    raise ManifestError(f"{where}: {clip_id!r} is not a valid id of this dataset (expected {pattern.pattern})")


def ranked(ids: Iterable[str], seed: int) -> list[str]:
    """Order ids by a seeded hash, so that the first n are a random subset of size n.

    The rank of an id depends only on the seed and the id. Smaller subsets are therefore contained in larger ones, and
    a clip whose media are missing on one machine does not change which of the other clips are drawn.
    """
    # hash() of a str differs between processes; SHA-256 does not.
    return sorted(ids, key=lambda clip_id: hashlib.sha256(f"{seed}/{clip_id}".encode()).digest())


def drawn(ids: Sequence[str], size: int | None, seed: int) -> list[str]:
    """Return a seeded subset of `size` ids, in the order of the list. With `size` None, return all ids."""
    if size is None:
        return list(ids)
    if size > len(ids):
        raise ManifestError(f"cannot draw a training set of {size} clips: only {len(ids)} are usable")
    chosen = set(ranked(ids, seed)[:size])
    return [clip_id for clip_id in ids if clip_id in chosen]


def shortened(items: Sequence[str], limit: int = 10) -> str:
    """Join the first items of a list, and add how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
