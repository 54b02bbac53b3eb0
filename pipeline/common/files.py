"""Files that are either whole or absent, fingerprints of what made them, and folders with one writer at a time.

Everything is written as ``NAME.tmp`` in the same folder, flushed to disk, then renamed over the target, so that a
reader never sees half a file and a kill at any moment leaves the previous one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.common.errors import SoundspotError

_BYTES_AT_ONCE = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it over `path` when the block ends without an error.

    Parameters
    ----------
    path : Path
        The target; its folder is made if absent.

    Yields
    ------
    Path
        ``NAME.tmp`` beside the target. It is removed if the block raises.

    Raises
    ------
    OSError
        It names a file: the system does not say which one a full disk cut short, so that is the target.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 with LF line ends, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON in the order of its keys; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with a header row and LF line ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def fingerprint(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return 32 hexadecimal digits that identify a JSON-like value, whatever the order of its keys.

    Used to tell whether what lies on disk was made by the same settings from the same input.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal; the file need not fit into memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BYTES_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def locked(folder: Path, error: type[SoundspotError], *, inside: bool = False) -> Iterator[None]:
    """Keep a second process from writing the same folder, by a lock file beside it.

    Parameters
    ----------
    folder : Path
        Need not exist; what holds the lock file is made if absent.
    error : type
        What to raise if another process holds the folder.
    inside : bool
        Put the lock file into the folder: for one that is never removed or taken for a whole, and of which a user may own
        nothing but the inside.
    """
    path = folder / ".soundspot.lock" if inside else folder.parent / f".{folder.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The system frees the lock when its holder dies, so a killed run never has to be unlocked by hand.
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise error(f"{folder}: another process is writing here ({path} is locked); wait for it") from None
