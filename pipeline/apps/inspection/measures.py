"""Statistics of a whole training set's pseudo-labels: agreement of two epochs, histograms of responses and audio similarity.

Conventions
-----------
Fractions are in [0, 1]. Clips are read in blocks, and pairs of clips are processed in blocks, so neither the maps nor the
pairs of a large dataset have to fit in memory. Results are dataclasses of plain values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.common.errors import PseudoLabelError
from pipeline.pseudo_labels.artifact import PseudoLabels

# Larger datasets are sampled down to this many clips; their 8 million pairs give shares to a fraction of a percent.
SAMPLE = 4096
_ROWS = 512  # rows of the cosine matrix computed at once
BINS = 20


def pair_cosines(labels: PseudoLabels, *, center: bool, sample: int | None = None) -> Iterator[np.ndarray]:
    """Yield the cosines of ã for all pairs of different clips, each pair once, in blocks.

    Parameters
    ----------
    labels : PseudoLabels
    center : bool
        Subtract the mean over all clips first.
    sample : int
        Number of clips drawn (always the same ones) if there are more; default: SAMPLE.

    Yields
    ------
    np.ndarray (pairs,) float32 in [-1, 1]
    """
    n, sample = len(labels), SAMPLE if sample is None else sample
    chosen = np.sort(np.random.default_rng(0).permutation(n)[:sample])
    total, parts, start = np.zeros(0), [], 0
    for block in labels.blocks():
        embedding = block.audio_embedding
        total = embedding.sum(axis=0, dtype=np.float64) + (total if total.size else 0)
        parts.append(embedding[chosen[(chosen >= start) & (chosen < start + len(block))] - start])
        start += len(block)
    if n < 2:
        return
    unit = np.concatenate(parts) - np.float32(total / n if center else 0)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    for first in range(0, len(unit) - 1, _ROWS):
        rows = unit[first : first + _ROWS]
        cosines = rows @ unit[first:].T  # k d, m d -> k m; column j is clip first + j
        yield np.clip(cosines[np.arange(cosines.shape[1]) > np.arange(len(rows))[:, None]], -1, 1)


def shared_mask_ious(labels: PseudoLabels, previous: PseudoLabels) -> tuple[list[str], np.ndarray]:
    """Return the clips that both epochs contain, and the IoU of their sounding regions, (n,) float64.

    Raises
    ------
    PseudoLabelError
        They have no clip in common, or maps of different sizes.
    """
    shared = [clip_id for clip_id in labels if clip_id in previous]
    if not shared:
        raise PseudoLabelError(
            f"{labels.path} and {previous.path} have no clip in common; they belong to different datasets"
        )
    sizes = [each[shared[0]].response.shape for each in (labels, previous)]
    if sizes[0] != sizes[1]:
        raise PseudoLabelError(f"{labels.path} has maps of {sizes[0]} cells, {previous.path} of {sizes[1]}")
    parts = [block.mask_ious(previous.select(block.clip_ids)) for block in labels.select(shared).blocks()]
    return shared, np.concatenate(parts)


@dataclass(frozen=True)
class ChangedClip:
    """One clip of a comparison."""

    clip_id: str
    mask_iou: float
    sounding_fraction_before: float
    sounding_fraction_after: float


@dataclass(frozen=True)
class Comparison:
    """Two epochs compared; `counts` is the histogram of mask IoU, in ten equal bins from 0 to 1."""

    before: str
    after: str
    clips: int
    clips_only_before: int
    clips_only_after: int
    mean_mask_iou: float
    quantiles: dict[str, float]
    unchanged: float
    counts: list[int]
    most_changed: list[ChangedClip]


def compare(before: PseudoLabels, after: PseudoLabels, *, top: int) -> Comparison:
    """Compare the sounding regions of two epochs, each under its own δ_v. Raises PseudoLabelError."""
    shared, ious = shared_mask_ious(after, before)
    sounding = [each.select(shared).sounding_fraction for each in (before, after)]
    # Among disjoint regions (IoU 0) the larger ones have changed more.
    order = np.lexsort((-(sounding[0] + sounding[1]), ious))[:top]
    levels = (10, 25, 50, 75, 90)
    return Comparison(
        before=str(before.path),
        after=str(after.path),
        clips=len(shared),
        clips_only_before=len(before) - len(shared),
        clips_only_after=len(after) - len(shared),
        mean_mask_iou=float(ious.mean()),
        quantiles={f"p{level}": float(value) for level, value in zip(levels, np.percentile(ious, levels), strict=True)},
        unchanged=float((ious == 1).mean()),
        counts=np.histogram(ious, bins=10, range=(0, 1))[0].tolist(),
        most_changed=[
            ChangedClip(shared[i], float(ious[i]), float(sounding[0][i]), float(sounding[1][i])) for i in order
        ],
    )


@dataclass(frozen=True)
class Histogram:
    """Counts in equal bins from `low` to `high`; `mark` is a threshold, `above` the share of values that pass it.

    A response passes if > δ_v (Eq. 4), a similarity if ≥ δ_a (Eq. 6). `exact` is False if only a sample of clips was
    used.
    """

    name: str
    low: float
    high: float
    counts: list[int]
    mark: float
    mark_name: str
    above: float
    exact: bool


def response_histogram(labels: PseudoLabels, *, bins: int = BINS) -> Histogram:
    """Return the histogram of R̃ over all cells of all clips, with δ_v marked."""
    delta_v = np.float32(labels.attrs["delta_v"])
    parts = ((block.response.ravel(), block.response > delta_v) for block in labels.blocks())
    counted = [(np.histogram(values, bins=bins, range=(0, 1))[0], int(above.sum())) for values, above in parts]
    return _histogram("response", (0, 1), counted, labels.attrs["delta_v"], "delta_v", bins, exact=True)


def similarity_histogram(labels: PseudoLabels, *, center: bool, bins: int = BINS) -> Histogram:
    """Return the histogram of the cosines of ã over pairs of clips (of a sample if there are many), with δ_a marked."""
    delta_a = labels.attrs["delta_a"]
    counted = [
        (np.histogram(cosines, bins=bins, range=(-1, 1))[0], int((cosines >= delta_a).sum()))
        for cosines in pair_cosines(labels, center=center)
    ]
    exact = len(labels) <= SAMPLE
    return _histogram("audio similarity", (-1, 1), counted, delta_a, "delta_a", bins, exact=exact)


def _histogram(
    name: str,
    ends: tuple[float, float],
    counted: Sequence[tuple[np.ndarray, int]],
    mark: float,
    mark_name: str,
    bins: int,
    *,
    exact: bool,
) -> Histogram:
    counts = sum((counts for counts, _ in counted), np.zeros(bins, dtype=np.int64))
    above = sum(passing for _, passing in counted) / max(int(counts.sum()), 1)
    return Histogram(name, *ends, counts.tolist(), mark, mark_name, above, exact)
