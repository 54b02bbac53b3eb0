"""Precision and recall of the audio relation y (Eq. 6) against the clips' class labels.

The paper assumes that clips with similar audio embeddings of the previous epoch contain the same kind of sound. With class
labels in the clip list, this can be measured. The labels are used for this measurement only.

Conventions
-----------
A pair (i, j), i ≠ j, is *related* if y_ij = 1, and *alike* if the clips share a label. Precision is the share of related
pairs that are alike, recall the share of alike pairs that are related. Both are counted over all ordered pairs of clips, not
over training batches: a random batch contains each pair with equal probability, so these are the expected values for any
batch size, without sampling noise. y_ii = 1 by construction and is not counted. The chance level of the precision is the
share of alike pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.common.seeding import evenly_spaced
from pipeline.model.equations import audio_relation
from pipeline.pseudo_labels.artifact import PseudoLabels

# 9 million pairs take a quarter of a second. Larger sets are subsampled at even steps.
MOST_CLIPS = 3000


@dataclass(frozen=True)
class RelationQuality:
    """Agreement of y with the class labels.

    Attributes
    ----------
    n_clips : int
        Number of clips whose pairs were counted.
    precision, recall : float in [0, 1]
        NaN if no pair is related, or none is alike, respectively.
    related, alike : float in [0, 1]
        Shares of all pairs; NaN for fewer than two clips. `alike` is the chance level of the precision.
    """

    n_clips: int
    precision: float
    recall: float
    related: float
    alike: float


def relation_quality(relation: np.ndarray, alike: np.ndarray) -> RelationQuality:
    """Compare a relation with the labels.

    Parameters
    ----------
    relation, alike : np.ndarray [shape=(n, n), dtype=bool]
        y, and which clips share a label. The diagonals are ignored.
    """
    if relation.shape != alike.shape or relation.ndim != 2 or relation.shape[0] != relation.shape[1]:
        raise ValueError(f"relation and alike must both be (n, n), got {relation.shape} and {alike.shape}")
    n = len(relation)
    own = int((np.diagonal(relation) & np.diagonal(alike)).sum())
    both = int((relation & alike).sum()) - own
    n_related = int(relation.sum()) - int(np.diagonal(relation).sum())
    n_alike = int(alike.sum()) - int(np.diagonal(alike).sum())
    return RelationQuality(
        n_clips=n,
        precision=_share(both, n_related),
        recall=_share(both, n_alike),
        related=_share(n_related, n * (n - 1)),
        alike=_share(n_alike, n * (n - 1)),
    )


def share_a_label(label_sets: Sequence[frozenset[str]]) -> np.ndarray:
    """Return which clips share a label, bool (n, n), symmetric; a clip without labels shares none."""
    names = sorted(frozenset().union(*label_sets))
    column = {name: i for i, name in enumerate(names)}
    # float32 matrix products are fast, and label counts are exact in float32.
    has = np.zeros((len(label_sets), len(names)), dtype=np.float32)
    for row, labels in enumerate(label_sets):
        has[row, [column[name] for name in labels]] = 1
    alike: np.ndarray = has @ has.T > 0
    return alike


def measured_clips(label_sets: Sequence[frozenset[str]], *, most: int = MOST_CLIPS) -> list[int]:
    """Return the positions of the clips to measure on: those with labels, at most `most`, evenly spaced."""
    labeled = [position for position, labels in enumerate(label_sets) if labels]
    return [labeled[i] for i in evenly_spaced(len(labeled), most)] if labeled else []


def relation_of_labels(
    labels: PseudoLabels,
    clip_ids: Sequence[str],
    positions: Sequence[int],
    *,
    center_audio: bool,
    delta_a: float | None = None,
) -> np.ndarray:
    """Return the relation y that training derives from the pseudo-labels of one epoch, bool (n, n).

    Parameters
    ----------
    labels : PseudoLabels
    clip_ids : sequence of str
        The whole training set; its mean embedding is the center.
    positions : sequence of int
        Clips to return, as positions in `clip_ids`.
    center_audio : bool
        Whether training subtracts the mean embedding before the cosines.
    delta_a : float, optional
        δ_a of Eq. 6; default: the attribute `delta_a` of `labels`.

    Raises
    ------
    PseudoLabelError
        A clip has no pseudo-labels, or the artifact is damaged.
    """
    embedding = torch.from_numpy(labels.audio_embedding[labels.rows(clip_ids)])
    center = embedding.mean(dim=0) if center_audio else None
    delta_a = labels.attrs["delta_a"] if delta_a is None else delta_a
    relation: np.ndarray = audio_relation(embedding[list(positions)], delta_a=delta_a, center=center).numpy()
    return relation


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
