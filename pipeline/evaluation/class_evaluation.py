"""DSOL's own rule for MUSIC-Synthetic: each sounding class's map against that class's boxes.

A method that found its classes itself has maps of clusters, which have numbers and no names. Which cluster is which class is
decided by the labels of the training clips and by what the method heard in them, as in DSOL's public code; nothing of the
scored clips has a part in it. Unlike there, a class gets one cluster, by an optimal assignment instead of the best of many
random ones, and clusters that are left over stand for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.project import MODEL_FILE
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.scoring.class_maps import score_class_maps
from pipeline.scoring.protocols import ScoringProtocol
from pipeline.scoring.summary import flat_metrics
from pipeline.scoring.tables import interval
from pipeline.shards.reader import ShardSet
from pipeline.training.artifacts import artifact_paths
from pipeline.training.checkpoints import load_model
from pipeline.training.class_labels import read_label_sets

PREFIX = "class_"
KEYS = ("success_rate", "auc", "nsa")
BATCH_SIZE = 64


def class_of_clusters(heard: np.ndarray, label_sets: Sequence[frozenset[str]]) -> dict[str, int]:
    """Name clusters by the classes of the clips in which they are heard.

    Parameters
    ----------
    heard : np.ndarray [shape=(clip, cluster)]
        p_a of each training clip; rows sum to 1.
    label_sets : sequence of frozenset of str
        The classes of each of these clips; empty where they are not known.

    Returns
    -------
    dict of str to int
        Class → its cluster, each cluster once, so that Σ P(cluster | class) is as large as can be. With more classes than
        clusters, some classes are not in it.
    """
    from scipy.optimize import linear_sum_assignment

    names = sorted(frozenset().union(*label_sets))
    row = {name: place for place, name in enumerate(names)}
    counts = np.zeros((len(names), heard.shape[1]))
    for share, classes in zip(heard, label_sets, strict=True):
        for name in classes:
            counts[row[name]] += share
    # By row, so that a class with many clips does not choose for the others.
    counts /= np.maximum(counts.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return {names[i]: int(cluster) for i, cluster in zip(*linear_sum_assignment(counts, maximize=True), strict=True)}


def class_metrics(
    runs: Sequence[Path],
    shards: ShardSet,
    boxes: Sequence[Box],
    protocol: ScoringProtocol,
    *,
    variant: str,
    clips: Path,
    threshold: float,
    device: str = "auto",
) -> tuple[dict[str, Any], str]:
    """Score the maps of a method class by class.

    Parameters
    ----------
    runs : sequence of Path
        The run of each seed, with ``model.pt`` and the pseudo-labels, which name the clips that it learned from.
    shards : ShardSet
        The scored split.
    boxes : sequence of Box
    protocol : ScoringProtocol
        With the consensus "per-source".
    variant : str
        Whose runs they are, for messages.
    clips : Path
        ``clips.csv`` of the data that they learned from.
    threshold : float
    device : str

    Returns
    -------
    metrics : dict
        ``class_success_rate``, ``class_auc`` and ``class_nsa`` with the ends of `pipeline.scoring.summary`; empty where the method
        has no map for each class, or where the labels of the training clips do not name those that sound in the scored ones.
    line : str
        For the terminal: the scores, or why there are none; empty for a method without such maps.
    """
    scored = []
    for run in runs:
        model = load_model(run / MODEL_FILE)
        heard = model.method.audio_clusters(model.encoders)
        if heard is None:
            return {}, ""
        learned_from = PseudoLabels.open(artifact_paths(run, variant=variant)[-1]).clip_ids
        label_sets = read_label_sets(clips, TRAIN_SPLIT, learned_from)
        cluster = class_of_clusters(heard, label_sets)
        nameless = sorted({box.source for box in boxes if box.sounding} - cluster.keys())
        if nameless:
            lacking = "their labels lack it, or are more than the clusters" if cluster else "they have no labels"
            return {}, f"no scores by class: the training clips name no cluster {nameless[0]!r}: {lacking}"
        maps = model.class_maps(shards, batch_size=BATCH_SIZE, device=device)
        assert maps is not None  # a method with clusters has their maps
        maps = maps[:, list(cluster.values())]
        scored.append(score_class_maps(maps, list(cluster), shards.clip_ids, boxes, protocol, threshold=threshold))
    flat = flat_metrics([{"": scores} for scores in scored])
    metrics = {PREFIX + key: value for key, value in flat.items() if key.startswith(KEYS)}
    values = ", ".join(f"{key} {interval(metrics, PREFIX + key)}" for key in KEYS if PREFIX + key in metrics)
    return metrics, f"by class, clusters named by the labels of the training clips: {values}"
