"""Locks of DVC that block a project although no DVC command uses them, left by commands that were killed.

``.dvc/tmp/rwlock`` lists in JSON which files a command reads or writes. DVC does not replace it atomically, so `kill -9` can leave
it empty, and then every command fails. DVC drops entries of dead processes, but if another program has got the process's number since,
the entry blocks forever. ``.dvc/tmp/lock`` is released by the operating system, except with DVC's setting `core.hardlink_lock`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from pipeline.common.errors import SettingsError
from pipeline.common.reading import read_json

RWLOCK_FILE = ".dvc/tmp/rwlock"
LOCK_FILES = (".dvc/tmp/lock", ".dvc/tmp/rwlock.lock")


def left_locks(project: Path) -> Iterator[tuple[Path, str]]:
    """Yield each lock that blocks the project, with the reason. Nothing while a DVC command runs in the project."""
    if any(_runs_dvc(process, project) for process in psutil.process_iter()):
        return
    path = project / RWLOCK_FILE
    if path.is_file() and (reason := _what_blocks(path)):
        yield path, reason
    for path in (project / name for name in LOCK_FILES):
        # A lock of the operating system is a plain file, and blocks nobody after the death of its process.
        if path.is_file() and path.stat().st_nlink > 1:
            yield path, "is held, but no DVC command runs on this machine (make sure that none runs on another one)"


def _what_blocks(path: Path) -> str:
    """Return why DVC cannot use its ``rwlock``, or an empty string."""
    try:
        lock = read_json(path, SettingsError)
        users = [user for infos in lock.get("read", {}).values() for user in infos] + [*lock.get("write", {}).values()]
        users = [(int(user["pid"]), str(user["cmd"])) for user in users]
    except (SettingsError, ValueError, LookupError, TypeError, AttributeError):
        return "is empty or damaged: DVC was killed while it wrote the file"
    for pid, command in users:
        # A process that was there when DVC wrote the file may be a script or notebook that uses DVC as a library.
        if _start_time(pid) > path.stat().st_mtime:
            return f"is held by {command!r}, which was killed; another program now has its process number, {pid}"
    return ""


def _start_time(pid: int) -> float:
    """Return when a process started, in seconds since 1970; 0 if it does not run."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def _runs_dvc(process: psutil.Process, project: Path) -> bool:
    """Whether a process is a DVC command that may be in the project: another user's, whose folder we cannot see, may be."""
    try:
        words = [Path(word).name for word in process.cmdline()[:4]]
    except (psutil.Error, OSError):
        return False
    # Not just any word: `soundspot doctor | grep dvc` is no DVC command.
    program = words[0].lower() if words else ""
    if program != "dvc" and not (program.startswith("python") and "dvc" in words):
        return False
    try:
        return Path(process.cwd()).is_relative_to(project.resolve())
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):
        return True
