"""Write an HDF5 file that is too large for memory: space reserved first, moved to its path at the end, plain errors."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from pipeline.common.files import replacing
from pipeline.common.hdf5 import LIBVER


@contextmanager
def streamed_file(path: Path, *, room: int) -> Iterator[h5py.File]:
    """Yield a new HDF5 file; it is moved to `path` atomically if the block ends without an error.

    `room` is an upper bound of its size in bytes. Raises OSError if the disk has less, or the file cannot be written.
    """
    with replacing(path) as temporary:
        # If the disk fills up, HDF5 cannot close the file and may crash the process, so reserve the space first.
        temporary.touch()
        _reserve(temporary, room)
        with storage_errors():
            file = h5py.File(temporary, "w", libver=LIBVER, locking=False)
        try:
            _reserve(temporary, room)  # opening truncated the file
            yield file
        except BaseException:
            # Closing writes again and may fail too; report the first error.
            with suppress(OSError, RuntimeError):
                file.close()
            raise
        with storage_errors():
            file.close()
        # Give back the reserved space that was not used.
        os.truncate(temporary, _end_of_file(temporary))


@contextmanager
def storage_errors() -> Iterator[None]:
    """Convert what h5py raises for a failed write, an OSError or a multi-line RuntimeError, to a plain OSError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = re.search(r"errno = (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def _reserve(path: Path, size: int) -> None:
    """Reserve disk space for a file of `size` bytes. Raises OSError if there is not enough."""
    if hasattr(os, "posix_fallocate"):  # absent on macOS and Windows
        with open(path, "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def _end_of_file(path: Path) -> int:
    """Return the end-of-file address in the superblock of a closed HDF5 file."""
    with open(path, "rb") as file:
        (end,) = struct.unpack_from("<Q", file.read(36), 28)  # HDF5 File Format Specification III, superblock version 3
    return int(end)
