"""Open local and remote media, and tell media that the system cannot read right now from damaged media."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from pipeline.common.access import EXHAUSTED, access_advice, access_errno, raise_if_access_error
from pipeline.common.errors import MediaError
from pipeline.common.files import file_digest
from pipeline.common.remote.path import RemotePath

Source = Path | IO[bytes]  # the second is a `RemoteFile`, whose text is its URL


def require_file(path: Path) -> None:
    """Raise MediaError unless `path` is a regular, non-empty file."""
    try:
        status = path.stat()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise unreadable(f"{path}: {reason}; check the clip list and the media root", error.errno) from None
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{path}: is a folder, not a media file")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path}: is not a regular file")
    if status.st_size == 0:
        raise MediaError(f"{path}: is empty (0 bytes); download it again")


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Yield what Pillow and FFmpeg open: a local path itself, or an open remote file.

    Raises
    ------
    MediaError
        A remote file cannot be read, or could not be read to the end; whatever was raised because of it is replaced.
    AccessError
        The server fails or cannot be reached.
    """
    if not isinstance(path, RemotePath):
        yield path
        return
    try:
        with path.open() as file:
            yield cast(IO[bytes], file)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check the clip list and the media root") from None


@contextmanager
def from_start(source: Source) -> Iterator[IO[bytes]]:
    """Yield a file at its beginning; an open remote file is at its old position afterwards."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        position = source.tell()
        source.seek(0)
        yield source
        source.seek(position)


def raise_if_unreadable(path: Source, error: Exception) -> None:
    """Raise if the system, and not the content, is why a local file cannot be read; otherwise return. For remote ones: `opened`.

    Raises
    ------
    AccessError
        At the limit of open files, where every other clip would fail as well.
    MediaError
        No permission, or an error of the disk or the network.
    """
    if not isinstance(path, Path):
        return
    number = access_errno(error)
    if number in EXHAUSTED:
        raise_if_access_error(path, error)
    # FFmpeg also reports truncated content as an input/output error.
    if number is not None and (number != errno.EIO or not _reads_to_the_end(path)):
        raise unreadable(f"{path}: cannot be read ({os.strerror(number)}); {access_advice(number)}", number) from None


def unreadable(message: str, number: int | None) -> MediaError:
    """Return a MediaError with the number of the system's error that caused it."""
    error = MediaError(message)
    error.errno = number
    return error


def _reads_to_the_end(path: Path) -> bool:
    try:
        file_digest(path)
    except OSError:
        return False
    return True
