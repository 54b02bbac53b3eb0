"""Which of many things are shown or kept, by a rule that nobody can bend."""

from __future__ import annotations

import numpy as np


def spread(n: int, count: int) -> list[int]:
    """Return up to `count` positions at equal steps through 0 … n-1, both ends included."""
    return sorted({int(i) for i in np.rint(np.linspace(0, n - 1, min(n, count)))})
