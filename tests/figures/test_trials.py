"""Panels of the trials of a search."""

from __future__ import annotations

import numpy as np

from pipeline.figures.trials import TrialDot, trial_panels


def dots(*scores):
    return [TrialDot(number, "failed" if score is None else "complete", score) for number, score in enumerate(scores)]


def test_every_trial_is_inside_its_panel():
    figure = trial_panels({"itr": dots(0.2, 0.3), "dmc": dots(None, 0.9, 0.8), "dsol": dots(0.0)}, metric="auc")
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low == 0
        assert high > 90
    best = figure.axes[1].get_lines()[0]
    np.testing.assert_allclose(best.get_xydata(), [[1, 90], [2, 90]])


def test_a_search_whose_trials_all_failed_has_a_plot():
    assert trial_panels({"itr": dots(None, None)}, metric="auc").axes[0].get_ylim() == (0, 1)
