"""Clips found by sound: the nearest ones by audio embedding, and how often they share a label (Figure 7).

Conventions
-----------
Embeddings are ã, (n, d), one row a clip. Likeness is the cosine, after the mean of all rows is subtracted if `center` is
set, as Eq. 6 takes it. Cosines are rounded to six decimals, more than float16 artifacts hold, so that clips with the same
sound tie whatever the order of the additions; ties go to the clip that comes first. A row without a direction (zero, or
equal to the mean) has the cosine 0 with every other. Labels are sets of class names, empty where a clip has none; two
clips agree if they share a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

CELLS = 8_000_000  # cosines in memory at once: 64 MB, and a few copies of them
DECIMALS = 6
NO_DIRECTION = 1e-6  # of the longest row, below which a row is the rounding error of a subtraction


def neighbors(
    embedding: np.ndarray, queries: Sequence[int] | np.ndarray, *, k: int, center: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the clips whose sound is most like each query's.

    Parameters
    ----------
    embedding : np.ndarray [shape=(n, d), floating]
        ã of all clips.
    queries : array of int [shape=(q,)]
        Rows of `embedding`, each in 0 … n-1.
    k : int >= 1
        How many clips to find; where there are fewer others, all of them.
    center : bool
        Subtract the mean of `embedding` first.

    Returns
    -------
    indices : np.ndarray [shape=(q, min(k, n - 1)), dtype=int64]
        Rows of the clips found, the most like first; the query itself is never among them.
    similarity : np.ndarray [shape=(q, min(k, n - 1)), dtype=float64]
        Their cosines, in [-1, 1].

    Raises
    ------
    ValueError
        A shape, a query or `k` is outside of what stands above.
    """
    queries = np.asarray(queries, dtype=np.int64)
    if embedding.ndim != 2 or queries.ndim != 1 or k < 1:
        raise ValueError(f"embedding {embedding.shape} must be (n, d), queries {queries.shape} (q,), and k {k} >= 1")
    n = len(embedding)
    if queries.size and not (queries.min() >= 0 and queries.max() < n):
        raise ValueError(f"queries must lie in 0 … {n - 1}, got {queries.min()} … {queries.max()}")
    k = min(k, max(n - 1, 0))
    if k == 0 or not queries.size:
        return np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k))
    unit = _directions(embedding, center=center)
    step = max(1, CELLS // n)
    found = [_nearest(unit, queries[i : i + step], k) for i in range(0, len(queries), step)]
    return np.concatenate([indices for indices, _ in found]), np.concatenate([cosines for _, cosines in found])


def precision_at_k(
    indices: np.ndarray, queries: Sequence[int] | np.ndarray, labels: Sequence[Collection[str]]
) -> np.ndarray:
    """Return the share of each query's neighbors that agree with it.

    Parameters
    ----------
    indices : np.ndarray [shape=(q, k), dtype=int]
        As `neighbors` returns them.
    queries : array of int [shape=(q,)]
    labels : sequence of collections of str [length=n]

    Returns
    -------
    np.ndarray [shape=(q,), dtype=float64]
        In [0, 1], or NaN for a query without a label. A neighbor without one is not counted, and a query that is left
        with none is NaN as well.
    """
    sets = [frozenset(names) for names in labels]
    precision = np.full(len(queries), np.nan)
    for place, (query, found) in enumerate(zip(queries, indices, strict=True)):
        agreeing = [not sets[query].isdisjoint(sets[i]) for i in found if sets[i]]
        if sets[query] and agreeing:
            precision[place] = np.mean(agreeing)
    return precision


def chance_precision(labels: Sequence[Collection[str]]) -> np.ndarray:
    """Return what `precision_at_k` expects of neighbors drawn at random: the share of other clips that agree.

    Parameters
    ----------
    labels : sequence of collections of str [length=n]

    Returns
    -------
    np.ndarray [shape=(n,), dtype=float64]
        Of each clip, among the other labeled ones; NaN for a clip without a label, and where no other has one.
    """
    clips = Counter(frozenset(names) for names in labels if names)
    column = {name: i for i, name in enumerate(sorted({name for names in clips for name in names}))}
    classes = np.zeros((len(clips), len(column)), dtype=np.float32)
    for row, names in zip(classes, clips, strict=True):
        row[[column[name] for name in names]] = 1
    counts, n = np.array(list(clips.values())), clips.total()
    # One distinct set of labels at a time: all pairs of them need not fit in memory.
    share = {
        names: (counts[classes @ row > 0].sum() - 1) / (n - 1) if n > 1 else np.nan
        for names, row in zip(clips, classes, strict=True)
    }
    return np.array([share.get(frozenset(names), np.nan) for names in labels], dtype=np.float64)


def _directions(embedding: np.ndarray, *, center: bool) -> np.ndarray:
    rows = embedding.astype(np.float64)
    longest = np.linalg.norm(rows, axis=1).max()
    if center:
        rows -= rows.mean(axis=0)
    length = np.linalg.norm(rows, axis=1)
    rows[length <= NO_DIRECTION * longest] = 0
    rows /= np.where(length > NO_DIRECTION * longest, length, 1)[:, None]
    return rows


def _nearest(unit: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    # q d, n d -> q n
    cosine = unit[queries] @ unit.T
    cosine[np.arange(len(queries)), queries] = -np.inf
    smallest = np.partition(cosine, -k, axis=1)[:, -k, None]
    # What rounds to the smallest of the k, or to more, is at most one step below it; only that much is rounded.
    row, clip = np.nonzero(cosine >= smallest - 10.0**-DECIMALS)
    likeness = np.round(cosine[row, clip], DECIMALS)
    order = np.lexsort((clip, -likeness, row))
    # Every row has k candidates or, if the last ones tie, more.
    first = np.searchsorted(row[order], np.arange(len(queries)))
    best = order[first[:, None] + np.arange(k)]
    return clip[best], likeness[best]
