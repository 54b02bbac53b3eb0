"""Audio retrieval: nearest clips by audio embedding, and how often they share a label (Figure 7).

Conventions
-----------
Embeddings are ã, (n, d), one row per clip. Similarity is the cosine, as in Eq. 6: if `center` is set, the mean of all rows
is subtracted first. Cosines are rounded to six decimals (float16 artifacts have fewer), so that clips with equal audio tie
whatever the summation order; ties go to the first clip. A row without a direction (zero, or equal to the mean) has cosine 0
with every other row. Labels are sets of class names, empty if a clip has none; two clips agree if they share a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

CELLS = 8_000_000  # cosines in memory at a time: 64 MB, plus a few copies
DECIMALS = 6
NO_DIRECTION = 1e-6  # relative to the longest row; anything shorter is rounding error of the subtraction


def neighbors(
    embedding: np.ndarray, queries: Sequence[int] | np.ndarray, *, k: int, center: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the clips with the most similar audio to each query.

    Parameters
    ----------
    embedding : np.ndarray [shape=(n, d), floating]
        ã of all clips.
    queries : array of int [shape=(q,)]
        Rows of `embedding`, each in 0 … n-1.
    k : int >= 1
        Number of clips to find; all others if there are fewer.
    center : bool
        Subtract the mean of `embedding` first.

    Returns
    -------
    indices : np.ndarray [shape=(q, min(k, n - 1)), dtype=int64]
        Rows of the clips found, most similar first; never the query itself.
    similarity : np.ndarray [shape=(q, min(k, n - 1)), dtype=float64]
        Their cosines, in [-1, 1].

    Raises
    ------
    ValueError
        A shape, a query or `k` is outside the ranges above.
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
    """Return the share of neighbors that agree with each query.

    Parameters
    ----------
    indices : np.ndarray [shape=(q, k), dtype=int]
        As `neighbors` returns them.
    queries : array of int [shape=(q,)]
    labels : sequence of collections of str [length=n]

    Returns
    -------
    np.ndarray [shape=(q,), dtype=float64]
        In [0, 1]. Neighbors without a label are not counted. NaN for a query without a label or without labeled
        neighbors.
    """
    sets = [frozenset(names) for names in labels]
    precision = np.full(len(queries), np.nan)
    for row, (query, found) in enumerate(zip(queries, indices, strict=True)):
        agreeing = [not sets[query].isdisjoint(sets[i]) for i in found if sets[i]]
        if sets[query] and agreeing:
            precision[row] = np.mean(agreeing)
    return precision


def chance_precision(labels: Sequence[Collection[str]]) -> np.ndarray:
    """Return the chance level of `precision_at_k`: the share of the other clips that agree.

    Parameters
    ----------
    labels : sequence of collections of str [length=n]

    Returns
    -------
    np.ndarray [shape=(n,), dtype=float64]
        Per clip, among the other labeled clips; NaN for a clip without a label or without other labeled clips.
    """
    clips = Counter(frozenset(names) for names in labels if names)
    column = {name: i for i, name in enumerate(sorted({name for names in clips for name in names}))}
    classes = np.zeros((len(clips), len(column)), dtype=np.float32)
    for row, names in zip(classes, clips, strict=True):
        row[[column[name] for name in names]] = 1
    counts, n = np.array(list(clips.values())), clips.total()
    # One distinct label set at a time, because all pairs may not fit in memory.
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
    # Only values at most one rounding step below the k-th largest can tie with it; round just those.
    row, clip = np.nonzero(cosine >= smallest - 10.0**-DECIMALS)
    similarity = np.round(cosine[row, clip], DECIMALS)
    order = np.lexsort((clip, -similarity, row))
    # Every row has at least k candidates; more if the last ones tie.
    first = np.searchsorted(row[order], np.arange(len(queries)))
    best = order[first[:, None] + np.arange(k)]
    return clip[best], similarity[best]
