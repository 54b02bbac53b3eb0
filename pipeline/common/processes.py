"""Child processes and temporary folders that leave nothing behind, whether Ctrl-C or `kill -9` ends the program."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "soundspot-scratch-"
_LOCK_FILE = ".lock"


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let Ctrl-C take effect at the end of the block, and never in threads and processes that are started in it.

    The terminal sends Ctrl-C to all processes of a command. Only the main process should handle it, and not while it starts or stops
    others: that would leave some of them running. On Windows, the block does nothing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting it later, with the first process, would unblock the signal in that thread
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new temporary folder, and remove it at the end. Removes folders of killed processes first."""
    _remove_left_folders()
    # The system releases the lock when this process dies. A process number would not tell, as another process may get it.
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name,
        FileLock(Path(name) / _LOCK_FILE),
    ):
        yield Path(name)


def _remove_left_folders() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):  # its process is alive, or another one removes it at the same time
            facts = folder.lstat()
            # A folder without a lock may have been created just now.
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == _user() and (folder / _LOCK_FILE).is_file():
                with FileLock(folder / _LOCK_FILE, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0  # on Windows, files have user 0
