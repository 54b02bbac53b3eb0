"""Quality of the pseudo-labels after each epoch: the relation of Eq. 6 against class labels, and how far sounding masks moved.

Conventions
-----------
Values are fractions, except `positives_per_clip` and `loss`; NaN where a value does not exist. Epoch 0 is the initialization.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.common.project import HISTORY_FILE, stage_name
from pipeline.evaluation.relation_quality import relation_of_labels, relation_quality
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training.artifacts import artifact_paths, centers_audio, relation_from
from pipeline.training.history import read_history

RELATION = ("precision", "recall", "alike", "related")
COLUMNS = (*RELATION, "positives_per_clip", "mask_iou_previous")
LOSS = "loss"
Means = dict[int, dict[str, float]]


@dataclass(frozen=True)
class EpochRow:
    """Measurements of one run after one epoch.

    Attributes
    ----------
    variant : str
    seed, epoch : int
    values : mapping of str to float
        COLUMNS and `loss`. precision, recall, alike, related: see `pipeline.evaluation.relation_quality`. `positives_per_clip` is
        the number of other clips in a batch that are related to a clip, as the NEXT epoch's training counted them.
        `mask_iou_previous` compares with the epoch before. `loss` is the epoch's own.
    """

    variant: str
    seed: int
    epoch: int
    values: Mapping[str, float]


def measure_run(
    folder: Path, variant: str, seed: int, clip_ids: Sequence[str], positions: Sequence[int], alike: np.ndarray
) -> list[EpochRow]:
    """Measure all epochs of one run.

    Parameters
    ----------
    folder : Path
        Of the run of one seed.
    variant, seed
        Stored in the rows.
    clip_ids : sequence of str
        The training set.
    positions : sequence of int
        Clips to measure the relation on; with fewer than two it is not measured.
    alike : np.ndarray [shape=(n, n), dtype=bool]
        Which of these clips share a class label.

    Raises
    ------
    EvaluationError
        The run has no pseudo-labels or no ``history.csv``.
    """
    paths = artifact_paths(folder)
    center, source = centers_audio(folder), relation_from(folder)
    relation_at = partial(relation_of_labels, clip_ids=clip_ids, positions=positions, center_audio=center)
    first = relation_at(PseudoLabels.open(paths[0])) if source != "previous" else None
    history = _history_by_epoch(folder / HISTORY_FILE)
    rows = []
    for path in paths:
        labels = PseudoLabels.open(path)
        epoch = int(labels.attrs["epoch"])
        values = dict.fromkeys(COLUMNS, math.nan)
        if len(positions) > 1:
            # y as the next epoch reads it.
            relation = relation_at(labels) if source != "initialization" or first is None else first
            relation = relation if first is None else relation | first
            quality = relation_quality(relation, alike)
            values |= {key: getattr(quality, key) for key in RELATION}
        values |= {key: history.get(epoch, {}).get(key, math.nan) for key in (LOSS, "mask_iou_previous")}
        # Training counts positives under the labels that it reads, which are those of the epoch before.
        values["positives_per_clip"] = history.get(epoch + 1, {}).get("positives_per_clip", math.nan)
        rows.append(EpochRow(variant, seed, epoch, values))
    return rows


def mean_over_seeds(rows: Sequence[EpochRow]) -> dict[str, Means]:
    """Return variant → epoch → mean of each of COLUMNS over the seeds that have it.

    A seed that converged earlier than others stays as it was after its last epoch.
    """
    means: dict[str, Means] = {}
    for variant in dict.fromkeys(row.variant for row in rows):
        runs: dict[int, dict[int, Mapping[str, float]]] = {}
        for row in rows:
            if row.variant == variant:
                runs.setdefault(row.seed, {})[row.epoch] = row.values
        means[variant] = {}
        for epoch in sorted(set().union(*runs.values())):
            values = [run[min(epoch, max(run))] for run in runs.values() if epoch in run or epoch > max(run)]
            means[variant][epoch] = {key: _mean([each[key] for each in values]) for key in COLUMNS}
    return means


def after_last_epoch(means: Means) -> dict[str, float]:
    """Return a variant's values after its last epoch.

    No training reads the last pseudo-labels, so `positives_per_clip` is that of the last epoch's own training.
    """
    last = max(means)
    # A method that does not learn from pseudo-labels may have none of the epoch before.
    before = means[last - 1]["positives_per_clip"] if last - 1 in means else math.nan
    return means[last] | {"positives_per_clip": before}


def _history_by_epoch(path: Path) -> dict[int, dict[str, float]]:
    try:
        return {int(row["epoch"]): row for row in read_history(path)}
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such history; run `dvc repro {stage_name('train', path.parent)}`") from None


def _mean(values: Sequence[float]) -> float:
    # np.nanmean would warn if no seed has the value.
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
