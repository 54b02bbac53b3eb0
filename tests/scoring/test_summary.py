"""`main_metrics`: the few numbers for DVC, out of all scores."""

from __future__ import annotations

import pytest
import yaml

from pipeline.common.project import METRICS_FILE
from pipeline.scoring.summary import best_baseline, main_metrics
from tests.support.projects import ROOT

ALL = {
    "split": "test", "seeds": [0], "success_rate": 0.635, "success_rate_low": 0.6, "success_rate_high": 0.67,
    "auc": 0.53340001, "mean_ciou": 0.53265813, "mean_iou": 0.1, "pointing_accuracy": 0.87287, "median_success_rate": 0.2,
    "shuffled_success_rate": 0.081, "shuffled_auc": 0.3, "n_clips": 1000, "threshold": 0.5, "training_audio_cosine": 0.4,
}  # fmt: skip
CONTENT_FREE = {
    "random": {"success_rate": 0.0},
    "gaussian": {"success_rate": 0.01349},
    "ones": {"success_rate": 0.01349},
}


def test_the_few_numbers_are_those_of_the_scores():
    assert main_metrics(ALL, CONTENT_FREE) == {
        "success_rate": 0.635,
        "auc": 0.5334,
        "mean_ciou": 0.5327,
        "pointing": 0.8729,
        "shuffled": 0.081,
        "best_baseline": 0.0135,
    }
    assert best_baseline(CONTENT_FREE) == "gaussian"


def test_mosaics_have_one_more():
    few = main_metrics({**ALL, "quadrant_accuracy": 0.75, "quadrant_chance": 0.25}, CONTENT_FREE)
    assert few["quadrant"] == 0.75
    assert few.keys() - main_metrics(ALL, CONTENT_FREE) == {"quadrant"}
    assert len(few) <= 8
    assert all(isinstance(value, float) for value in few.values())


def test_without_baselines_there_is_no_best_one():
    assert "best_baseline" not in main_metrics(ALL, {})


@pytest.mark.parametrize("variant", ["initial", "iterative"])
def test_they_fit_on_a_line_of_dvc(variant):
    """`dvc metrics show` separates columns by four spaces, and a value of four digits takes six characters."""
    columns = [f"results/demo/{variant}/{METRICS_FILE}", *main_metrics(ALL, CONTENT_FREE)]
    assert sum(max(len(column), 6) for column in columns) + 4 * (len(columns) - 1) <= 120


def test_stages_have_no_other_metrics():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    shown = [path for stage in stages.values() for entry in stage.get("metrics", ()) for path in entry]
    assert len(shown) == 2
    assert all(path.endswith(f"/{METRICS_FILE}") for path in shown)
