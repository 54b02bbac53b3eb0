"""How well y of Eq. 6 finds the sounds of one kind: its precision and recall against the clips' labels, epoch by epoch.

The paper assumes that sounds alike to the previous epoch's audio network are of one kind. Where a clip list names the kinds,
that can be measured; no method sees these labels here.

Conventions
-----------
A pair (i, j), i ≠ j, is related if y_ij = 1, and alike if the two clips share a label. Precision is the share of related pairs
that are alike, recall the share of alike pairs that are related. All are counted over ALL ordered pairs of the clips, not
over the batches that training happened to draw: a batch of random clips holds each pair with the same probability, so these are
the values that batches of any size have in expectation, without their noise. y_ii = 1 holds by construction and is not
counted. A relation by chance has the share of alike pairs as its precision.
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

# 9 million pairs, a quarter of a second; of larger sets, so many clips at equal steps through the list.
MOST_CLIPS = 3000


@dataclass(frozen=True)
class RelationQuality:
    """Agreement of y with the labels.

    Attributes
    ----------
    n_clips : int
        Clips among which pairs were counted.
    precision, recall : float in [0, 1]
        NaN where no pair is related, or none alike.
    related, alike : float in [0, 1]
        Shares of all pairs; NaN with fewer than two clips. `alike` is the precision of a relation by chance.
    """

    n_clips: int
    precision: float
    recall: float
    related: float
    alike: float


def relation_quality(relation: np.ndarray, alike: np.ndarray) -> RelationQuality:
    """Compare a relation with the truth.

    Parameters
    ----------
    relation, alike : np.ndarray [shape=(n, n), dtype=bool]
        y, and which clips share a label. The diagonals are not read.
    """
    if relation.shape != alike.shape or relation.ndim != 2 or relation.shape[0] != relation.shape[1]:
        raise ValueError(f"relation and truth must be (n, n), got {relation.shape} and {alike.shape}")
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
    """Return which clips have a label in common, bool (n, n), symmetric; a clip without labels is alike to none."""
    names = sorted(frozenset().union(*label_sets))
    column = {name: i for i, name in enumerate(names)}
    # float32, for whose products there are fast routines; counts of labels are exact in it.
    has = np.zeros((len(label_sets), len(names)), dtype=np.float32)
    for row, labels in enumerate(label_sets):
        has[row, [column[name] for name in labels]] = 1
    alike: np.ndarray = has @ has.T > 0
    return alike


def measured_clips(label_sets: Sequence[frozenset[str]], *, most: int = MOST_CLIPS) -> list[int]:
    """Return the positions of the clips to measure on: those with labels, at most `most` at equal steps."""
    labeled = [position for position, labels in enumerate(label_sets) if labels]
    return [labeled[i] for i in evenly_spaced(len(labeled), most)] if labeled else []


def relation_of_labels(
    labels: PseudoLabels, clip_ids: Sequence[str], positions: Sequence[int], *, center_audio: bool
) -> np.ndarray:
    """Return y that training reads from one epoch's pseudo-labels, bool (n, n).

    Parameters
    ----------
    labels : PseudoLabels
        Its attribute `delta_a` is δ_a of Eq. 6.
    clip_ids : sequence of str
        The whole training set, whose mean is the center.
    positions : sequence of int
        The clips wanted, as positions in `clip_ids`.
    center_audio : bool
        As in training: subtract the mean embedding before the cosines.

    Raises
    ------
    PseudoLabelError
        A clip has no labels, or the artifact is damaged.
    """
    embedding = torch.from_numpy(labels.audio_embedding[labels.rows(clip_ids)])
    center = embedding.mean(dim=0) if center_audio else None
    relation: np.ndarray = audio_relation(
        embedding[list(positions)], delta_a=labels.attrs["delta_a"], center=center
    ).numpy()
    return relation


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
