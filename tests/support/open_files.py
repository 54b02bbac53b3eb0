"""The limit of open files, for tests of what happens at it."""

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def limited_files(n_more: int) -> Iterator[None]:
    """Let this process open `n_more` further files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open(os.devnull, os.O_RDONLY)
    os.close(probe)
    try:
        # The limit counts numbers, and there may be free ones below the highest in use.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 1 + n_more, hard))
        with ExitStack() as stack:
            fillers = []
            while True:
                try:
                    fillers.append(stack.enter_context(open(os.devnull)))
                except OSError:
                    break
            for filler in fillers[:n_more]:
                filler.close()
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def n_open_files() -> int:
    """Count the open files of this process."""
    return len(os.listdir("/dev/fd"))
