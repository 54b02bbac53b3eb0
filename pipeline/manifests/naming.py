"""Clip ids: how they are made from the paths of media files, and which clip a name in a user's list means.

Conventions
-----------
A clip's id is its path without the suffix, converted to a slug: ``/`` becomes ``--``, accents are dropped, and any other
character that is not allowed becomes ``_``. If that loses letters, or if the path is too long, eight hexadecimal digits of
the path's hash are appended. Files whose ids would then be equal, ignoring case (``x.mp4`` and ``x.webm``), all get their
suffix as well: ``x.mp4``, ``x.webm``. If that is not enough (``a b.mp4`` and ``a_b.mp4``), they get digits of the hash of
their whole path instead. An id therefore depends only on the file's own path, and on whether another file has the same
name; never on the order or number of files. Paths are compared and hashed in Unicode's NFC, so that macOS and Linux agree.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath

ID_LENGTH = 128
_DIGITS = 8  # of a hash
VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg"),
    *(".mpeg", ".flv", ".ts", ".ogv", ".3gp", ".wmv"),
)
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".avif")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")
MEDIA_SUFFIXES = frozenset((*VIDEO_SUFFIXES, *FRAME_SUFFIXES, *AUDIO_SUFFIXES))


def slug(path: str) -> str:
    """Return the clip id for a path relative to the media root, as if it were the only file; see the module's docstring."""
    return _slug(_stem(path))


def distinct_ids(paths: Iterable[str], kept: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an id for each path, distinct even if case is ignored; see the module's docstring.

    Parameters
    ----------
    paths : iterable of str
        Distinct paths relative to the media root.
    kept : mapping of str to str, optional
        Path → id of an earlier call, which is used again although more files may collide now. Ids that this path could
        not have got are ignored.
    """
    wanted = {path: slug(path) for path in paths}
    chosen: dict[str, str] = {}
    for path, clip_id in (kept or {}).items():
        if path in wanted and any(clip_id == make(path) for make in (slug, *_LONGER)):
            chosen[path] = clip_id
    for make in (*_LONGER, None):
        taken = {clip_id.casefold() for clip_id in chosen.values()}
        counts = Counter(clip_id.casefold() for path, clip_id in wanted.items() if path not in chosen)
        for path, clip_id in wanted.items():
            if path not in chosen and counts[clip_id.casefold()] == 1 and clip_id.casefold() not in taken:
                chosen[path] = clip_id
        if make is None or len(chosen) == len(wanted):
            break
        wanted = {path: clip_id if path in chosen else make(path) for path, clip_id in wanted.items()}
    return {path: chosen[path] for path in wanted}


class Names:
    """Finds what a name in a user's list means, although programs and systems may have changed it on the way.

    Tried in this order; the first way that fits any of the names decides:

    1. the name itself;
    2. without regard to case, Unicode form, and the kind of slashes;
    3. without the media suffix, too;
    4. a number whose leading zeros a spreadsheet program has removed.

    Parameters
    ----------
    names : iterable of (str, str)
        Each name and what it stands for; several names can stand for the same.
    """

    def __init__(self, names: Iterable[tuple[str, str]]) -> None:
        self._names = list(names)
        self._meant: dict[Callable[[str], str], dict[str, set[str]]] = {}

    def find(self, name: str) -> list[str]:
        """Return what the name can mean, sorted: nothing if it is unknown, several if it is ambiguous."""
        for form in (str, _same_path, _same_stem, _same_number):
            if (key := form(name)) and key in (meant := self._by(form)):
                return sorted(meant[key])
        return []

    def find_path(self, name: str) -> list[str]:
        """As `find`, but the suffix and leading zeros must agree."""
        return next((sorted(meant) for form in (str, _same_path) if (meant := self._by(form).get(form(name)))), [])

    def _by(self, form: Callable[[str], str]) -> dict[str, set[str]]:
        """Index the names under one form, when it is first needed: most lists are exact."""
        if form not in self._meant:
            index = self._meant[form] = {}
            for name, meaning in self._names:
                index.setdefault(form(name), set()).add(meaning)
        return self._meant[form]


def _slug(text: str) -> str:
    readable = _readable(text)
    lost = not readable.isascii() and any(letter.isalnum() and not letter.isascii() for letter in readable)
    clip_id = _allowed(readable)
    return clip_id if not lost and len(clip_id) <= ID_LENGTH else _with_digits(clip_id, _nfc(text), _DIGITS)


def _with_hash(path: str) -> str:
    return _with_digits(_allowed(_readable(_stem(path))), _nfc(path), _DIGITS)


def _with_long_hash(path: str) -> str:
    return _with_digits(_allowed(_readable(_stem(path))), path, 4 * _DIGITS)


_LONGER = (_slug, _with_hash, _with_long_hash)  # what a path gets if its slug is not unique, in this order


def _stem(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()


def _readable(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).replace("/", "--")
    return plain if plain.isascii() else "".join(letter for letter in plain if not unicodedata.combining(letter))


def _allowed(readable: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", readable)


def _with_digits(clip_id: str, hashed: str, digits: int) -> str:
    digest = hashlib.sha256(hashed.encode("utf-8", "surrogateescape")).hexdigest()[:digits]
    # Keep the end of the path: names differ there more often than in their folders.
    return f"{clip_id[-(ID_LENGTH - digits - 1) :]}-{digest}"


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _same_path(name: str) -> str:
    return posixpath.normpath(_nfc(name).strip().replace("\\", "/")).casefold()


def _same_stem(name: str) -> str:
    # Names contain dots of their own: walk_1.75 is not walk_1.5.
    path = _same_path(name)
    stem, suffix = posixpath.splitext(path)
    return stem if suffix in MEDIA_SUFFIXES else path


def _same_number(name: str) -> str:
    stem = _same_stem(name)
    return (stem.lstrip("0") or "0") if stem.isascii() and stem.isdecimal() else ""
