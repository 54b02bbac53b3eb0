"""Tell media that the system cannot read right now from damaged media."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pipeline.common.access import EXHAUSTED, access_advice, access_errno, raise_if_access_error
from pipeline.common.errors import MediaError
from pipeline.common.files import file_digest


def raise_if_unreadable(path: Path, error: Exception) -> None:
    """Raise if the system, and not the content, is why a file cannot be read; otherwise return.

    Raises
    ------
    AccessError
        At the limit of open files, where every other clip would fail as well.
    MediaError
        No permission, or an error of the disk or the network.
    """
    number = access_errno(error)
    if number in EXHAUSTED:
        raise_if_access_error(path, error)
    # FFmpeg also reports truncated content as an input/output error.
    if number is not None and (number != errno.EIO or not _reads_to_the_end(path)):
        problem = MediaError(f"{path}: cannot be read ({os.strerror(number)}); {access_advice(number)}")
        problem.errno = number
        raise problem from None


def _reads_to_the_end(path: Path) -> bool:
    try:
        file_digest(path)
    except OSError:
        return False
    return True
