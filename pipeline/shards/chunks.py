"""Read chunks of HDF5 files without the HDF5 library, from several threads at once. Files stay open between reads.

HDF5 serves one thread at a time, and computes a chunk's Fletcher-32 on every read, which takes longer than copying the chunk. What
training reads clip by clip is stored as uncompressed chunks, so a chunk is one read at the position that HDF5 gives (`chunk_offsets`).
Nothing here verifies it: the caller must compare a checksum of its own, such as the CRC-32 of each clip in a shard.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import h5py
import numpy as np

from pipeline.common.access import EXHAUSTED, access_errno

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_FLETCHER32_BYTES = 4  # HDF5 appends the checksum to the chunk


def chunk_offsets(dataset: h5py.Dataset, *, partial: bool = False) -> np.ndarray:
    """Return where in its file each chunk of a dataset begins, in bytes: int64, in the shape of the grid of chunks.

    Raises ValueError if the chunks are not stored as they are, each followed by its Fletcher-32; or, unless the last ones may be
    `partial`, if they do not fill the dataset exactly.
    """
    chunk = dataset.chunks or ()
    grid = [-1 if n % size and not partial else -(-n // size) for n, size in zip(dataset.shape, chunk, strict=False)]
    if not chunk or min(grid) < 0 or not dataset.fletcher32 or dataset.compression or dataset.shuffle:
        raise ValueError(f"{dataset.name} is not stored as plain chunks with Fletcher-32")
    offsets = np.full(grid, -1, dtype=np.int64)
    chunks: list[Any] = []
    if offsets.size:
        dataset.id.chunk_iter(chunks.append)
    stored = [(each.size, each.filter_mask, each.byte_offset, *each.chunk_offset) for each in chunks]
    table = np.array(stored, dtype=np.int64).reshape(len(chunks), 3 + len(chunk))
    n_bytes = math.prod(chunk) * dataset.dtype.itemsize + _FLETCHER32_BYTES
    plain = table[(table[:, 0] == n_bytes) & (table[:, 1] == 0)]
    offsets[tuple((plain[:, 3:] // chunk).T)] = plain[:, 2]
    if (offsets < 0).any():
        raise ValueError(f"{dataset.name}: a chunk is missing or has another size")
    return offsets


class ChunkReader:
    """Reads bytes of files. The files read last stay open, `open_files_limit` at most, and one more for each thread that reads.

    It can be used by several threads, and passed to worker processes: open files belong to one process and are never pickled.
    """

    def __init__(self) -> None:
        # A dropped file closes when no thread reads it.
        self._opened: Callable[[Path], _OpenFile] = lru_cache(maxsize=open_files_limit())(_OpenFile)

    def read_into(self, path: Path, offset: int, array: np.ndarray) -> None:
        """Fill an array, contiguous in memory, with the bytes of a file from `offset` on.

        Raises OSError if the file cannot be opened or read, and ValueError if it ends before.
        """
        try:
            file = self._opened(path)
        except OSError as error:
            if access_errno(error) not in EXHAUSTED:
                raise
            self.close()  # the files that are open here may be what exhausts the limit
            file = self._opened(path)
        rest = array.data.cast("B")
        while rest:  # one read may return less than was asked for
            n_read = file.read_at(offset, rest)
            if not n_read:
                raise ValueError("the file ends too early")
            offset, rest = offset + n_read, rest[n_read:]

    def close(self) -> None:
        """Close this process's files; `read_into` reopens them."""
        self._opened.cache_clear()  # type: ignore[attr-defined]

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkReader, ()


def open_files_limit() -> int:
    """Return how many files of one set a process keeps open.

    Ours: a quarter of the process's limit of open files, as one process may read several sets at once, but at least 8 and
    at most 256. The usual limits are 1024 on Linux and 256 on macOS, so this is 256 and 64. A shard has 512 clips by
    default, so up to 131,072 or 32,768 clips are read without reopening a file, which takes a tenth of the time of reading a clip.
    """
    if resource is None:
        return 64
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if soft == resource.RLIM_INFINITY else min(max(soft // 4, 8), 256)


class _OpenFile:
    """A file that is open until nothing refers to it."""

    def __init__(self, path: Path) -> None:
        self._number = -1
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = Lock()

    def read_at(self, offset: int, buffer: memoryview) -> int:
        """Read into a buffer and return the number of bytes read, 0 at the end of the file."""
        if hasattr(os, "preadv"):
            return os.preadv(self._number, [buffer], offset)
        with self._lock:  # Windows has one position per open file
            os.lseek(self._number, offset, os.SEEK_SET)
            content = os.read(self._number, len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def __del__(self) -> None:
        if self._number >= 0:
            os.close(self._number)
