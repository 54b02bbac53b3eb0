"""How well the clusters of a method agree with the clips' class labels, which the method does not see.

DSOL clusters the training set before an epoch and learns from the clusters as if they were classes. If two kinds share a cluster, it
cannot tell them apart afterward. Clips with exactly one label count; the values are for all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.common.errors import PseudoLabelError
from pipeline.common.hdf5 import read_array, read_attributes, read_ids, reading

CLUSTERS = "pseudo_class"  # array of ``start_NNN.h5``


@dataclass(frozen=True)
class ClusterQuality:
    """Agreement of clusters with class labels.

    Attributes
    ----------
    clusters : int
        Number of clusters with at least one of the clips.
    classes, covered : int
        Number of classes, and of those that are the most frequent one of some cluster.
    purity : float in [0, 1]
        Share of the clips that belong to the most frequent class of their cluster.
    nmi : float in [0, 1]
        Mutual information of clusters and classes, divided by the mean of their entropies.
    """

    clusters: int
    classes: int
    covered: int
    purity: float
    nmi: float


def cluster_quality(clusters: np.ndarray, label_sets: Sequence[frozenset[str]]) -> ClusterQuality | None:
    """Compare clusters (clip,) int with the labels of the same clips; None if no clip has exactly one label."""
    from sklearn.metrics import normalized_mutual_info_score  # the import takes a second
    from sklearn.metrics.cluster import contingency_matrix

    rows = [row for row, labels in enumerate(label_sets) if len(labels) == 1]
    if not rows:
        return None
    kinds = [next(iter(label_sets[row])) for row in rows]
    counts = contingency_matrix(kinds, clusters[rows])  # (class, cluster)
    return ClusterQuality(
        clusters=counts.shape[1],
        classes=counts.shape[0],
        covered=len(set(counts.argmax(axis=0).tolist())),
        purity=float(counts.max(axis=0).sum() / counts.sum()),
        nmi=float(normalized_mutual_info_score(kinds, clusters[rows])),
    )


def read_clusters(path: Path) -> tuple[int, list[str], np.ndarray] | None:
    """Read the epoch, the clip ids and the clusters (clip,) of a ``start_NNN.h5``; None if it has no clusters.

    Raises PseudoLabelError if the file is missing or damaged.
    """
    with reading(path, lambda reason: PseudoLabelError(f"{path}: damaged ({reason})"), sealed=True) as file:
        if CLUSTERS not in file:
            return None
        return int(read_attributes(file)["epoch"]), read_ids(file["clip_id"]), read_array(file[CLUSTERS])
