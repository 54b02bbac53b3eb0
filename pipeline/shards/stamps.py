"""What tells cheaply that a finished file is still the one that was written: size, modification time, and the end of the file.

It is used for shards and for stored features. Reading all of them again to compare checksums takes hours for a split of two million
clips. Damage that keeps all three is still found: reading compares each clip with its own checksum. The stamps belong to one copy of
the files, so DVC does not track them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pipeline.common.access import raise_if_access_error
from pipeline.common.files import write_text
from pipeline.common.project import FINISHED_FILE

_THREADS = 16  # ours: enough to hide the latency of a network drive
_TAIL_BYTES = 1 << 16  # ours: what an unfinished copy or a lost block at the end would change


class Stamp(NamedTuple):
    """Size in bytes, modification time in ns, and the SHA-256 of the last 64 KiB of a file."""

    size: int
    mtime_ns: int
    tail: str


def file_stamp(path: Path) -> Stamp:
    """Return the stamp of a file. Raises AccessError or another OSError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            file.seek(max(0, status.st_size - _TAIL_BYTES))
            return Stamp(status.st_size, status.st_mtime_ns, hashlib.sha256(file.read()).hexdigest())
    except OSError as error:
        raise_if_access_error(path, error)
        raise


def file_stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """Return the stamps of those files that exist. Raises as `file_stamp`."""
    there = [path for path in paths if path.exists()]
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(there, pool.map(file_stamp, there), strict=True))


def how_checked(n_trusted: int, n_kept: int) -> str:
    """Return how finished files were verified, for a message: `n_trusted` of them by their stamps, the others by their checksums."""
    if not n_trusted:
        return "checksums verified"
    of_rest = f"; {n_kept - n_trusted} by their checksums" if n_trusted < n_kept else ""
    return f"sizes, times and ends of the files verified{of_rest}"


@dataclass(frozen=True)
class Entry:
    """A finished file: its name, fingerprint of its inputs, content digest and stamp; for shards, how many clips were rejected."""

    name: str
    fingerprint: str
    digest: str
    stamp: Stamp
    n_rejects: int = 0


def read_entries(folder: Path) -> dict[str, Entry]:
    """Return the finished files by name. Lines that cannot be read are left out, such as one that a killed run began."""
    entries: dict[str, Entry] = {}
    try:
        lines = (folder / FINISHED_FILE).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    except OSError as error:
        raise_if_access_error(folder / FINISHED_FILE, error)
        raise
    for line in lines:
        try:
            entry = Entry(**json.loads(line))
            entries[entry.name] = replace(entry, stamp=Stamp(*entry.stamp))
        except (ValueError, TypeError):
            continue
    return entries


def write_entries(folder: Path, entries: Iterable[Entry]) -> None:
    """Replace the list of finished files."""
    write_text(folder / FINISHED_FILE, "".join(map(_line, entries)))


def add_entry(folder: Path, entry: Entry) -> None:
    """Add a finished file."""
    with open(folder / FINISHED_FILE, "a", encoding="utf-8") as file:
        file.write(_line(entry))


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"
