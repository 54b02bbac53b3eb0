"""The plot of a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.figures.style import save
from pipeline.figures.trials import TrialDot, trial_panels
from pipeline.search.results import Line


def draw_trials(lines: Sequence[Line], path: Path) -> None:
    """Draw the trials of a table, in its order."""
    rows: dict[str, list[TrialDot]] = {}
    for line in lines:
        rows.setdefault(line.row, []).append(TrialDot(line.trial.number, line.trial.state, line.trial.score))
    save(trial_panels(rows, metric=lines[0].metric), path)
