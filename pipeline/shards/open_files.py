"""HDF5 files that stay open between reads, in each process on its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import h5py

from pipeline.common.access import EXHAUSTED, access_errno
from pipeline.common.hdf5 import open_file

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


class OpenFiles:
    """Datasets by path of their file. The files read last stay open, `open_files_limit` at most.

    It can be passed to worker processes: file handles belong to one process and are never pickled.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        # Keyed by process, because HDF5 handles are not safe to use after a fork. A dropped file closes when nobody reads it. The
        # datasets are kept, because looking one up takes longer than a clip's checksum.
        self._handle: Any = lru_cache(maxsize=open_files_limit())(partial(_arrays, self.names))

    def __call__(self, path: Path) -> tuple[h5py.Dataset, ...]:
        """Return the datasets `names` of a file. Raises OSError if it cannot be opened, KeyError if one is missing."""
        try:
            datasets: tuple[h5py.Dataset, ...] = self._handle(path, os.getpid())[1]
        except OSError as error:
            if access_errno(error) not in EXHAUSTED:
                raise
            self.close()  # the files that are open here may be what exhausts the limit
            datasets = self._handle(path, os.getpid())[1]
        return datasets

    def close(self) -> None:
        """Close this process's files; a call reopens them."""
        self._handle.cache_clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenFiles, (self.names,)


def open_files_limit() -> int:
    """Return how many files of one set a process keeps open.

    Ours: a quarter of the process's limit of open files, as one process may read several sets at once, but at least 8 and
    at most 256. The usual limits are 1024 on Linux and 256 on macOS, so this is 256 and 64. A shard has 512 clips by
    default, so up to 131,072 or 32,768 clips are read without reopening a file, which takes half as long as reading a clip.
    """
    if resource is None:
        return 64
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if soft == resource.RLIM_INFINITY else min(max(soft // 4, 8), 256)


def _arrays(names: tuple[str, ...], path: Path, pid: int) -> tuple[h5py.File, tuple[h5py.Dataset, ...]]:
    file = open_file(path)
    return file, tuple(file[name] for name in names)
