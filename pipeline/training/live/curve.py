"""The loss over the steps of a run, with a limited number of points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MOST_POINTS = 2000  # of a run: enough for a plot, and quickly logged again when the run resumes
_STEPS, _LOSSES = "curve.steps", "curve.losses"


class LossCurve:
    """Points of (step, loss), each the mean loss of the steps since the point before.

    Parameters
    ----------
    n_steps : int
        Steps of the whole run. With at most MOST_POINTS of them, every step is a point. Otherwise a point is the mean of
        several steps, none of which is in another epoch.
    """

    def __init__(self, n_steps: int) -> None:
        self.every = max(1, math.ceil(n_steps / MOST_POINTS))
        self.points: list[tuple[int, float]] = []
        self._step = 0
        self._pending: list[float] = []

    def add(self, loss: float) -> None:
        """Add the loss of the next step."""
        self._step += 1
        self._pending.append(loss)
        if len(self._pending) == self.every:
            self.end_epoch()

    def end_epoch(self) -> None:
        """Make a point of the steps since the last point, if there are any."""
        if self._pending:
            self.points.append((self._step, sum(self._pending) / len(self._pending)))
            self._pending = []

    def content(self) -> dict[str, Any]:
        """Return the entries for ``state.pt``, after an epoch."""
        return {_STEPS: [step for step, _ in self.points], _LOSSES: [loss for _, loss in self.points]}

    def restore(self, content: Mapping[str, Any]) -> None:
        """Load entries from `content`. Raises KeyError, TypeError or ValueError if they are damaged."""
        points = zip(content[_STEPS], content[_LOSSES], strict=True)
        self.points = [(int(step), float(loss)) for step, loss in points]
        self._step = self.points[-1][0] if self.points else 0
