"""Atomic file writing, fingerprints of content, and folders with a single writer.

Files are written as ``NAME.tmp`` in the same folder, flushed to disk, and renamed over the target. Readers therefore never
see a partial file, and a process that is killed at any point leaves the previous version intact.
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

_BLOCK_BYTES = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to `path` if the block ends without an error.

    Parameters
    ----------
    path : Path
        The target; its folder is created if necessary.

    Yields
    ------
    Path
        ``NAME.tmp`` next to the target. It is removed if the block raises.

    Raises
    ------
    OSError
        The file cannot be written. Its `filename` is set, to the target if the system gave none (as for a full disk).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        # Without fsync, a power failure after the rename could leave an empty target.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with LF line endings."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as indented JSON, keeping the order of keys. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with a header row and LF line endings atomically."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def fingerprint(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return 32 hexadecimal digits that identify a JSON-like value, independent of the order of its keys.

    Used to check whether a file was made with the same settings from the same input.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits. Reads in blocks, so the file may exceed memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def locked(folder: Path, error: type[SoundspotError], *, inside: bool = False) -> Iterator[None]:
    """Prevent a second process from writing to the same folder, with a lock file next to it.

    Parameters
    ----------
    folder : Path
        Need not exist; the folder that contains the lock file is created.
    error : type
        Raised if another process holds the lock.
    inside : bool
        Put the lock file into the folder. For output folders that are never deleted as a whole, and whose parent folder may
        not be writable.
    """
    path = folder / ".soundspot.lock" if inside else folder.parent / f".{folder.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The operating system releases the lock when its process dies, so nobody has to unlock after a kill.
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise error(f"{folder}: another process is writing here ({path} is locked); wait for it") from None
