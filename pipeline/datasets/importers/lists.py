"""Reads the text and CSV lists of published datasets, and draws seeded subsets of ids.

Conventions: an id list is a text or CSV file whose first column is the id, with the separators and encodings of
`pipeline.common.tables`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.common.errors import ManifestError
from pipeline.common.tables import open_table, read_table, spoiled
from pipeline.manifests.boxes import Box, read_boxes
from pipeline.manifests.clips import Clip
from pipeline.manifests.naming import MEDIA_SUFFIXES, Names

SLUG = re.compile(r"[A-Za-z0-9._-]{1,128}")
HEADERS = {"clip_id", "id", "file", "video", "youtube_id", "ytid"}


@dataclass(frozen=True)
class IdList:
    """The distinct ids of a list, in its order, and the ids that occur more than once."""

    ids: list[str]
    repeated: list[str]


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
    rows = read_table(path)
    # Public lists come with and without a header, and none of these names is an id.
    if rows and rows[0][1][0].lower() in HEADERS:
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


class ClipLists:
    """Reads a user's lists, which can name a clip by its id, or by its path with or without the suffix.

    Parameters
    ----------
    clips : sequence of Clip

    Attributes
    ----------
    understood : dict of Path to dict of str to str
        For each list read: names that were written differently from the path or id that they mean; see
        `pipeline.manifests.naming.Names`.
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._paths = {clip.clip_id: clip.video or clip.clip_id for clip in clips}
        named = [(clip.clip_id, clip.clip_id) for clip in clips]
        self._names = Names([*named, *((clip.video, clip.clip_id) for clip in clips if clip.video)])
        self.understood: dict[Path, dict[str, str]] = {}

    def boxes(self, path: Path) -> list[Box]:
        """Read a box file. An unknown clip keeps the name that it has there. Raises ManifestError."""
        return read_boxes(path, rename=lambda name, where: self._id([name], path, where) or name)

    def ids(self, path: Path) -> set[str]:
        """Read a list of clips, one per line. Raises ManifestError for names that fit no clip, or several."""
        ids: set[str] = set()
        unknown: list[tuple[str, str]] = []
        with open_table(path) as table:
            for row, (line, cells) in enumerate(table.rows):
                # A path can contain the separator. The whole line is therefore tried first.
                names = [table.separator.join(cells), f"{table.separator} ".join(cells), cells[0]]
                if clip_id := self._id(names, path, f"{path}:{line}"):
                    ids.add(clip_id)
                elif row > 0 or cells[0].lower() not in HEADERS:
                    unknown.append((f"{path}:{line}", cells[0]))
        if unknown:
            where, name = unknown[0]
            more = f" (the first of {len(unknown)} such lines)" if len(unknown) > 1 else ""
            raise ManifestError(
                f"{where}: {name!r} is neither a clip id nor the path of a video in the folder{spoiled(name)}{more}"
            )
        return ids

    def _id(self, names: Sequence[str], path: Path, where: str) -> str:
        """Return the clip that the first known one of `names` means, or an empty string."""
        for name in names:
            found = self._names.find(name)
            if len(found) > 1:
                paths = " or ".join(repr(self._paths[clip_id]) for clip_id in found[:3])
                raise ManifestError(f"{where}: {name!r} can mean {paths}; write the path with its suffix")
            if found:
                meant = self._paths[found[0]]
                if name not in (found[0], meant):
                    self.understood.setdefault(path, {})[name] = meant
                return found[0]
        return ""


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
    return name.stem if name.suffix.lower() in MEDIA_SUFFIXES else name.name


def checked_id(clip_id: str, where: str, *, pattern: re.Pattern[str] = SLUG) -> str:
    """Return `clip_id` if it is a slug and matches `pattern`. Otherwise raises ManifestError, with `where`."""
    # Ids become file names, so "." and ".." are excluded although they match SLUG.
    if SLUG.fullmatch(clip_id) and pattern.fullmatch(clip_id) and clip_id not in {".", ".."}:
        return clip_id
    raise ManifestError(
        f"{where}: {clip_id!r} is not a valid id of this dataset (expected {pattern.pattern}){spoiled(clip_id)}"
    )


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
