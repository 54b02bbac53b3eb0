"""Which of the files of a clip list are there."""

from __future__ import annotations

import errno
import itertools
import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.common.access import may_pass, raise_if_access_error
from pipeline.manifests.clips import Clip, media_path
from pipeline.manifests.naming import Names

_THREADS = 32  # ours: a network drive answers many requests at a time, but each one late
_FILES_PER_TASK = 256
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def media_problems(clips: Iterable[Clip], media_root: Path) -> dict[str, str]:
    """Return path → problem for each file of the clips that is missing, empty, or not a file.

    Each file is looked at once, even if several clips use it, and many at the same time. Raises AccessError if the drive does not answer.
    """
    media = list(dict.fromkeys(medium for clip in clips for medium in clip.media))
    # In parts: a task for each of millions of files would take more memory than the list.
    parts = [media[start : start + _FILES_PER_TASK] for start in range(0, len(media), _FILES_PER_TASK)]

    def check(part: Sequence[str]) -> list[str]:
        return [_problem(media_path(media_root, medium)) for medium in part]

    with ThreadPoolExecutor(_THREADS) as pool:
        problems = itertools.chain.from_iterable(pool.map(check, parts))
        return {medium: problem for medium, problem in zip(media, problems, strict=True) if problem}


def _problem(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        if may_pass(error):
            raise_if_access_error(path, error)
        return "no such file" if error.errno in _ABSENT else f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    return "" if status.st_size else "empty"


def near_name(path: Path, listed: dict[Path, Names]) -> str:
    """Return, as the end of a message, the file next to a missing one whose name differs only in case or Unicode form.

    `listed` keeps the names in each folder from one call to the next. The text is empty if there is no such file.
    """
    if path.parent not in listed:
        names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        listed[path.parent] = Names((name, name) for name in names)
    found = listed[path.parent].find_path(path.name)
    return f"; the folder has {found[0]!r}, so import the dataset again" if found and not path.exists() else ""
