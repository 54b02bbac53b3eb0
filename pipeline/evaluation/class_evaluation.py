"""Class-wise evaluation, DSOL's own protocol on MUSIC-Synthetic: the map of each sounding class against its boxes.

DSOL discovers its classes by clustering, so its clusters have numbers but no names. As in its public code, clusters are named
by the labels of the training clips and the clusters heard in them; the scored clips are not used. Unlike there, each class
gets exactly one cluster by an optimal assignment, instead of the best of many random ones, and surplus clusters are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.project import MODEL_FILE
from pipeline.evaluation.response_maps import BATCH_SIZE
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


def class_of_clusters(heard: np.ndarray, label_sets: Sequence[frozenset[str]]) -> dict[str, int]:
    """Assign one cluster to each class, by the clips in which it is heard.

    Parameters
    ----------
    heard : np.ndarray [shape=(clip, cluster)]
        Cluster probabilities p_a of each training clip; rows sum to 1.
    label_sets : sequence of frozenset of str
        Classes of each of these clips; empty if unknown.

    Returns
    -------
    dict of str to int
        Class → cluster, each cluster at most once, maximizing Σ P(cluster | class). If there are more classes than
        clusters, some classes are missing.
    """
    from scipy.optimize import linear_sum_assignment

    names = sorted(frozenset().union(*label_sets))
    row = {name: place for place, name in enumerate(names)}
    counts = np.zeros((len(names), heard.shape[1]))
    for share, classes in zip(heard, label_sets, strict=True):
        for name in classes:
            counts[row[name]] += share
    # Normalize per class, so that frequent classes do not dominate the assignment.
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
    """Score the class maps of a method.

    Parameters
    ----------
    runs : sequence of Path
        Run folder of each seed, with ``model.pt`` and the pseudo-labels, which list the training clips.
    shards : ShardSet
        The scored split.
    boxes : sequence of Box
    protocol : ScoringProtocol
        Must have the consensus "per-source".
    variant : str
        Name of the method, for messages.
    clips : Path
        ``clips.csv`` of the training data.
    threshold : float
    device : str

    Returns
    -------
    metrics : dict
        ``class_success_rate``, ``class_auc`` and ``class_nsa`` with the suffixes of `pipeline.scoring.summary`. Empty if the
        method has no class maps, or if the training labels do not cover the classes that sound in the scored clips.
    line : str
        For the terminal: the scores, or why there are none. Empty for a method without class maps.
    """
    scored = []
    for run in runs:
        model = load_model(run / MODEL_FILE)
        heard = model.audio_clusters()
        if heard is None:
            return {}, ""
        # The pseudo-labels list exactly the clips of this run, in the row order of `heard`.
        learned_from = PseudoLabels.open(artifact_paths(run)[-1]).clip_ids
        label_sets = read_label_sets(clips, TRAIN_SPLIT, learned_from)
        cluster = class_of_clusters(heard, label_sets)
        nameless = sorted({box.source for box in boxes if box.sounding} - cluster.keys())
        if nameless:
            reason = "it is not among their labels, or has no cluster left" if cluster else "they have no labels"
            return {}, f"no class scores: the training clips assign no cluster to {nameless[0]!r}: {reason}"
        maps = model.class_maps(shards, batch_size=BATCH_SIZE, device=device)
        assert maps is not None  # guaranteed for a method with audio clusters
        maps = maps[:, list(cluster.values())]
        scored.append(score_class_maps(maps, list(cluster), shards.clip_ids, boxes, protocol, threshold=threshold))
    flat = flat_metrics([{"": scores} for scores in scored])
    metrics = {PREFIX + key: value for key, value in flat.items() if key.startswith(KEYS)}
    values = ", ".join(f"{key} {interval(metrics, PREFIX + key)}" for key in KEYS if PREFIX + key in metrics)
    return metrics, f"class scores, clusters named by the labels of the training clips: {values}"
