"""Tell a file that the system cannot open or read right now from a file with damaged content.

At the limit of open files, without permission, or after an error of the disk or the network, reading fails although the
content may be intact. Such a file must not be called damaged: it would be deleted, or its clip left out, for no reason.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from pipeline.common.errors import AccessError, SoundspotError

# What a network drive or a busy machine may recover from within seconds. EIO is also what a bad disk reports, again and again.
_PASSING = {
    errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOLCK, errno.ETIMEDOUT, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.ECONNABORTED, errno.ECONNREFUSED,
    errno.ECONNRESET, errno.ENOTCONN,
}  # fmt: skip
EXHAUSTED = {errno.EMFILE, errno.ENFILE}  # affects every file, unlike the others
_NO_PERMISSION = {errno.EACCES, errno.EPERM}
_ACCESS_ERRNOS = {
    *_PASSING, *EXHAUSTED, *_NO_PERMISSION, errno.ENOMEM, errno.ENXIO, errno.ENODEV, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


def may_pass(error: BaseException) -> bool:
    """Return whether trying again may succeed: an OSError of a network drive, or a SoundspotError that it caused."""
    return isinstance(error, OSError | SoundspotError) and error.errno in _PASSING


def access_errno(error: BaseException) -> int | None:
    """Return the error number if the system could not open or read a file, and None for any other error.

    HDF5 reports some of these numbers only in the text of its error.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r"\berrno = (\d+)", str(error))):
        number = int(found[1])
    return number if number in _ACCESS_ERRNOS else None


def raise_if_access_error(path: Path, error: BaseException) -> None:
    """Raise AccessError if `error` means that the system cannot open or read `path`; otherwise return."""
    number = access_errno(error)
    if number is not None:
        problem = AccessError(f"{path}: cannot be read ({os.strerror(number)}); {access_advice(number)}")
        problem.errno = number
        raise problem from None


def access_advice(number: int) -> str:
    """Return what to do about an error number of `access_errno`."""
    if number in EXHAUSTED:
        return "the file itself may be intact: raise the limit with `ulimit -n 4096`, or close other programs, and run again"
    if number in _NO_PERMISSION:
        return "fix its permissions"
    if number in (errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return "check the path"
    return "the file itself may be intact: check the disk or the network drive, and run again"
