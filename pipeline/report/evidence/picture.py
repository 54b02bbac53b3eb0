"""The figures of the evidence: every row of every dataset, with the values that the paper printed for its own data beside them.

Values are in percent. Intervals are those of ``scores.json`` and ``baselines.json``: bootstrap 95% over clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.labels import label_of
from pipeline.figures.dots import DotPanel, Dots, dot_panels
from pipeline.methods.registry import METHODS
from pipeline.report.evidence.results import METRIC_NAMES, Results
from pipeline.report.published import TABLE_1, TABLE_2
from pipeline.scoring.baselines import BASELINE_LABELS
from pipeline.scoring.summary import SHUFFLED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS, OTHERS, CONTENT_FREE = "The paper's method and its parts", "Other systems", "Without the clip's audio"
SHUFFLED_ROW = "full method, shuffled audio"
# Method modules of the paper's own rows, with and without iterating.
_OWN_MODULES = ("pipeline.methods.iterative", "pipeline.methods.contrastive")
_PAPER = {"soundnet_flickr": "SoundNet-Flickr 10k", "music_synthetic": "MUSIC-Synthetic (cIoU@0.3)"}
_SHOWN_SHUFFLED = "iterative"
ENDS = ("", "_low", "_high")


def pictures(datasets: Sequence[Results]) -> dict[str, Figure]:
    """Return the figures by name: the primary metric of each dataset (empty name), AUC, and the success rate of mosaics.

    The last panel of each figure has the values that the paper printed.
    """
    chosen = {"": [(each, each.primary) for each in datasets], "auc": [(each, "auc") for each in datasets]}
    chosen["success"] = [(each, "success_rate") for each in datasets if each.primary != "success_rate"]
    groups = row_groups(datasets)
    return {
        name: dot_panels(groups, [*(_panel(*each) for each in panels), _paper_panel(int(name == "auc"))])
        for name, panels in chosen.items()
        if panels
    }


def row_groups(datasets: Sequence[Results]) -> dict[str, list[str]]:
    """Return the labels of all rows that any dataset has, in the order of METHODS, by group."""
    trained = list(dict.fromkeys(name for results in datasets for name in results.rows))
    trained.sort(key=lambda name: list(METHODS).index(name) if name in METHODS else len(METHODS))
    own = [name for name in trained if name in METHODS and METHODS[name].module in _OWN_MODULES]
    content_free = [name for name in BASELINE_LABELS if any(name in results.content_free for results in datasets)]
    groups = {
        OURS: [label_of(name) for name in own],
        OTHERS: [label_of(name) for name in trained if name not in own],
        CONTENT_FREE: [*([SHUFFLED_ROW] if _SHOWN_SHUFFLED in trained else []), *map(label_of, content_free)],
    }
    return {title: rows for title, rows in groups.items() if rows}


def _panel(results: Results, metric: str) -> DotPanel:
    measured = {
        label_of(name): _dots(metrics, metric)
        for name, metrics in [*((n, row.metrics) for n, row in results.rows.items()), *results.content_free.items()]
    }
    if _SHOWN_SHUFFLED in results.rows:
        measured[SHUFFLED_ROW] = _dots(results.rows[_SHOWN_SHUFFLED].metrics, SHUFFLED + metric)
    return DotPanel(results.name, f"{METRIC_NAMES[metric]}, %", measured, {})


def _dots(metrics: Mapping[str, Any], key: str) -> Dots:
    value, low, high = (100 * metrics[key + end] for end in ENDS)
    seeds = metrics.get(f"{key}_seeds") or ([metrics[key]] if "seeds" in metrics else [])
    return Dots(value, low, high, [100 * each for each in seeds])


def _paper_panel(column: int) -> DotPanel:
    """Return the printed values: success rate (column 0) or AUC (column 1)."""
    printed: dict[str, dict[str, list[float]]] = {}
    for dataset, name in _PAPER.items():
        # MSSL has two values for SoundNet-Flickr, one in each table.
        for table in (TABLE_1, TABLE_2):
            for row, values in table[dataset].rows.items() if dataset in table else ():
                printed.setdefault(name, {}).setdefault(label_of(row), []).append(values[column])
    return DotPanel("the paper, on its own data", ("success rate, %", "AUC, %")[column], {}, printed)
