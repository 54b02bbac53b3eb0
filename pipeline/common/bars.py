"""Whether progress bars are drawn: on a terminal alone, and nowhere where TQDM_DISABLE is 1, which `--quiet` sets."""

from __future__ import annotations

import os

VARIABLE = "TQDM_DISABLE"  # tqdm's own, so that worker processes and DVC's stages keep quiet as well


def is_quiet() -> bool:
    """Tell whether the user wants neither bars nor notes."""
    return os.environ.get(VARIABLE) == "1"


def bars_off() -> bool | None:
    """Return what tqdm's `disable` is to be: True for no bar, None for one on a terminal alone.

    tqdm reads the variable for the default of `disable` only: a plain ``disable=None`` would undo it.
    """
    return True if is_quiet() else None
