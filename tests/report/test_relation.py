"""Pseudo-labels by epoch: means over the seeds in the text, the figure and the chart; what is missing is reported."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.common.errors import EvaluationError
from pipeline.report.epoch_quality import COLUMNS, EpochRow, mean_over_seeds, measure_run
from pipeline.report.sections.relation import figure_panels, relation_chart, relation_text


def row(variant, seed, epoch, **values):
    return EpochRow(variant, seed, epoch, {key: values.get(key, math.nan) for key in COLUMNS})


class FakeSource:
    seeds, variants, train_shards, shown = [0, 1], ["itr", "iterative"], range(30), "iterative"
    ordered = ("iterative", "itr")


ROWS = [
    row(variant, seed, epoch, precision=0.3 + 0.1 * epoch + 0.02 * seed, recall=0.5, alike=0.1, related=0.2, **more)
    for variant in ("itr", "iterative")
    for seed in (0, 1)
    for epoch, more in ((0, {"positives_per_clip": 2.0 + seed}), (1, {"mask_iou_previous": 0.4 + 0.2 * seed}))
]
MEANS = mean_over_seeds(ROWS)


def test_text_has_means_over_seeds():
    text = relation_text(FakeSource, MEANS, n_labeled=30, n_measured=30)
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    assert lines[2] == ["0", "31.0", "50.0", "10.0", "20.0", "2.50", "–"]
    assert lines[3] == ["1", "41.0", "50.0", "10.0", "20.0", "–", "0.50"]
    assert lines[-2] == ["iterative (Eq. 7)", "41.0", "50.0", "10.0", "20.0", "2.50", "0.50"]
    assert "(30 of 30 have labels)" in text


def test_a_seed_without_a_value_is_left_out_of_the_mean():
    means = mean_over_seeds([row("itr", 0, 1, precision=0.4), row("itr", 1, 1)])
    assert means["itr"][1]["precision"] == 0.4
    assert math.isnan(means["itr"][1]["recall"])


def test_a_seed_that_converged_earlier_stays_as_it_was():
    long = [row("itr", 0, epoch, precision=0.1 * epoch, positives_per_clip=1.0) for epoch in (0, 1, 2)]
    short = [row("itr", 1, 0, precision=0.5, positives_per_clip=3.0), row("itr", 1, 1, precision=0.6)]
    means = mean_over_seeds([*long, *short])["itr"]
    assert [means[epoch]["precision"] for epoch in (0, 1, 2)] == pytest.approx([0.25, 0.35, 0.4])
    assert [means[epoch]["positives_per_clip"] for epoch in (0, 1, 2)] == [2.0, 1.0, 1.0]


def test_figure_and_chart_have_the_means_and_the_chance_level():
    figure = figure_panels(MEANS, measured=True)
    chart = relation_chart({name: MEANS[name] for name in FakeSource.ordered})
    assert [panel.title for panel in figure[:2]] == [panel.title for panel in chart.panels[:2]]
    (precision, recall, iou) = chart.panels
    assert [curve.label for curve in precision.curves] == [
        "iterative (Eq. 7)",
        "itr",
        "chance, for iterative (Eq. 7)",
    ]
    assert precision.curves[0].values == (0.31, 0.41)
    assert (precision.curves[2].kind, precision.curves[2].values) == ("content_free", (0.1, 0.1))
    assert recall.curves[2].values == (0.2, 0.2)
    assert [curve.values for curve in iou.curves] == [(None, 0.5)] * 2
    assert chart.x_values == [0, 1]
    drawn = {line.label: list(line.y) for line in figure[0].lines}
    assert drawn["itr"] == pytest.approx([0.31, 0.41])
    assert drawn["chance"] == pytest.approx([0.1, 0.1])


def test_runs_of_different_length_leave_a_gap_in_the_chart():
    means = mean_over_seeds([*ROWS, row("dmc", 0, 0, precision=0.2)])
    dmc = next(curve for curve in relation_chart(means).panels[0].curves if curve.label == "DMC")
    assert dmc.values == (0.2, None)


def test_without_labels_only_the_masks_are_shown():
    means = mean_over_seeds(
        [*(row("iterative", 0, epoch, mask_iou_previous=0.4) for epoch in (0, 1)), row("itr", 0, 0)]
    )
    text = relation_text(FakeSource, means, n_labeled=0, n_measured=0)
    assert "no class labels" in text
    assert "recision" not in text
    assert len(figure_panels(means, measured=False)) == 1
    assert [panel.title for panel in relation_chart(means).panels] == ["IoU of masks"]


def test_a_run_without_artifacts_names_its_stage(tmp_path):
    with pytest.raises(EvaluationError, match=r"dvc repro train`"):
        measure_run(tmp_path / "itr", "itr", 0, [], [], np.empty((0, 0)))
