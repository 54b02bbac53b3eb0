"""Atomic file writing, fingerprints of content, and folders with a single writer.

Files are written under a temporary name in the same folder, flushed to disk, and renamed over the target. Readers therefore
never see a partial file, and a process that is killed at any point leaves the previous version intact.

A temporary name is ``.NAME.XXXXXXXX.tmp`` with random hexadecimal digits. The file is created exclusively, so it can be
neither another file nor a symbolic link that somebody has put there. Names of this form belong to this program: what killed
runs have left is removed by the next run in the folder (`remove_leftovers`), and Git and DVC ignore it. Any other ``X.tmp``
is the user's own.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.common.errors import SoundspotError

_BLOCK_BYTES = 1 << 20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)
_LONGEST_NAME = 240
DAY_S = 86_400.0


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write to, and rename it to `path` if the block ends without an error.

    A symbolic link at `path` is replaced, not followed: DVC may link an output to its cache, whose files must not change.

    Parameters
    ----------
    path : Path
        The target; its folder is created if necessary.

    Yields
    ------
    Path
        An empty file next to the target, with the usual permissions. It is removed if the block raises.

    Raises
    ------
    OSError
        The file cannot be written. Its `filename` is the target if the system gave none (as for a full disk) or the
        temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        # Not `tempfile`, whose files only their owner may read.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            yield temporary
            # Without fsync, a power failure after the rename could leave an empty target.
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary), temporary):
            error.filename = str(path)
        raise


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new empty folder next to `path`, which is removed at the end unless the block has renamed it."""
    folder = temporary_path(path)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_path(path: Path) -> Path:
    """Return a new temporary path next to `path`."""
    # A name has at most 255 bytes on most file systems.
    name = os.fsencode(path.name)[:_LONGEST_NAME].decode("utf-8", errors="ignore")
    return path.with_name(f".{name}.{secrets.token_hex(4)}.tmp")


def remove_leftovers(*folders: Path, min_age_s: float = 0.0) -> None:
    """Remove temporary files and folders that killed runs have left in `folders`, but not in their subfolders.

    Another process may be writing such a file. A caller that has not locked the folder therefore sets `min_age_s`, seconds
    since the last change.
    """
    for path in [path for folder in folders if folder.is_dir() for path in folder.iterdir()]:
        if not _TEMPORARY.fullmatch(path.name):
            continue
        with suppress(OSError):  # its owner has just renamed it, or is another user
            if time.time() - path.lstat().st_mtime < min_age_s:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


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


def listed(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted, without hidden files: macOS and editors leave ``._train.csv`` and ``.#train.csv``."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


@contextmanager
def storing(path: Path, error: type[SoundspotError]) -> Iterator[None]:
    """Convert a failure to write one of many files, at or under `path`, into an `error` that tells the user what to do."""
    try:
        yield
    except OSError as reason:
        problem = error(
            f"{path}: cannot be written ({reason.strerror or reason}); free disk space or fix the permissions, and rerun: "
            "finished files are kept"
        )
        problem.errno = reason.errno
        raise problem from None
