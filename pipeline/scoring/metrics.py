"""How well a sounding region agrees with what annotators drew.

Conventions
-----------
Regions are bool arrays (..., row, col), True where the method says that the sound comes from. A consensus map g is
float (..., row, col) in [0, 1]; 0 is background, 1 is agreed on, a value between weighs less but costs nothing when
hit. Everything is computed and returned in float64, as fractions, not percent. A value that is not defined (an empty
consensus map) is NaN, and callers count it.

Sources: cIoU and its success rate, Senocak et al., CVPR 2018, as all public evaluation code of the field has it; AUC is
the trapezoid over 21 thresholds, not the mean of the 21 values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.common.errors import EvaluationError

FloatArray = NDArray[np.float64]
CURVE_STEPS = 20
# Two fractions closer than this are the same number: 3/10 reached through different roundings is 0.3.
TOLERANCE = 1e-12


def ciou(region: ArrayLike, consensus: ArrayLike) -> FloatArray:
    """Consensus intersection over union.

    Parameters
    ----------
    region : array_like of bool, shape (..., row, col)
        The predicted sounding region.
    consensus : array_like of float, shape (..., row, col)
        Consensus map g in [0, 1].

    Returns
    -------
    float64 array, shape (...)
        Σ(P·g) / (Σg + Σ(P·[g = 0])): a false positive is a pixel where g is exactly 0. NaN where g is 0 everywhere.
    """
    predicted = np.asarray(region, dtype=bool)
    g = np.asarray(consensus, dtype=np.float64)
    hit = np.where(predicted, g, 0.0).sum(axis=(-2, -1))
    false_positives = (predicted & (g == 0)).sum(axis=(-2, -1))
    return _ratio(hit, g.sum(axis=(-2, -1)), false_positives)


def iou(region: ArrayLike, sounding: ArrayLike) -> FloatArray:
    """Plain intersection over union with the pixels that at least one box covers.

    Parameters
    ----------
    region, sounding : array_like of bool, shape (..., row, col)
        Predicted region and the support g > 0 of the consensus map.

    Returns
    -------
    float64 array, shape (...)
        NaN where no pixel is sounding.
    """
    predicted, truth = np.asarray(region, dtype=bool), np.asarray(sounding, dtype=bool)
    hit = (predicted & truth).sum(axis=(-2, -1))
    return _ratio(hit, truth.sum(axis=(-2, -1)), (predicted & ~truth).sum(axis=(-2, -1)))


def _ratio(hit: NDArray, mass: NDArray, false_positives: NDArray) -> FloatArray:
    hit, mass, false_positives = (np.asarray(value, dtype=np.float64) for value in (hit, mass, false_positives))
    empty = mass == 0
    return np.where(empty, np.nan, hit / np.where(empty, 1.0, mass + false_positives))


def succeeds(cious: ArrayLike, threshold: float, *, legacy_float: bool = False) -> NDArray[np.bool_]:
    """Tell which clips reach a threshold.

    Parameters
    ----------
    cious : array_like of float
        cIoU of each clip; NaN never succeeds.
    threshold : float in [0, 1]
        Smallest cIoU of a success.
    legacy_float : bool
        Public code compares with ``0.05 * i`` in floating point, and ``0.05 * 6`` is 0.30000000000000004, so that a
        cIoU of exactly 0.3 fails there. True reproduces this for multiples of 0.05; False compares with a tolerance of
        1e-12, so that 0.3 reaches 0.3.
    """
    values = np.asarray(cious, dtype=np.float64)
    if not legacy_float:
        return values >= threshold - TOLERANCE
    step = round(threshold * CURVE_STEPS)
    on_grid = abs(step / CURVE_STEPS - threshold) < TOLERANCE
    return values >= (0.05 * step if on_grid else threshold)


def success_curve(cious: ArrayLike, *, legacy_float: bool = False) -> FloatArray:
    """Success rate at the thresholds 0, 1/20, …, 1.

    Returns
    -------
    float64 array, shape (..., 21)
        The last axis of `cious`, the clip, is averaged away.
    """
    return curve_of_each_clip(_some(cious), legacy_float=legacy_float).mean(axis=-2)


def curve_of_each_clip(cious: ArrayLike, *, legacy_float: bool = False) -> FloatArray:
    """Success (0 or 1) of each clip at each of the 21 thresholds: shape (..., clip, 21)."""
    values = np.asarray(cious, dtype=np.float64)
    steps = [succeeds(values, k / CURVE_STEPS, legacy_float=legacy_float) for k in range(CURVE_STEPS + 1)]
    return np.stack(steps, axis=-1).astype(np.float64)


def auc(curve: ArrayLike) -> FloatArray:
    """Area under a success curve by the trapezoid rule, shape (..., 21) → (...), in [0, 1]."""
    y = np.asarray(curve, dtype=np.float64)
    if y.shape[-1] != CURVE_STEPS + 1:
        raise EvaluationError(f"a success curve has {CURVE_STEPS + 1} values, got {y.shape[-1]}")
    return (y.sum(axis=-1) - 0.5 * (y[..., 0] + y[..., -1])) / CURVE_STEPS


def bootstrap_interval(
    values: ArrayLike, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Percentile bootstrap interval of a mean over clips.

    Parameters
    ----------
    values : array_like of float, shape (clip,) or (clip, metric)
        One value per clip; the metrics of one call share their resamples.
    resamples : int
        Number of resamples.
    seed : int
        Of the random generator, so that the same values give the same interval.
    level : float in (0, 1)
        Coverage.

    Returns
    -------
    low, high : float64 arrays, shape () or (metric,)
    """
    sample = _some(values)
    n_clips = len(sample)
    generator = np.random.default_rng(seed)
    # Counts of how often each clip is drawn, times the values: one matrix product per block of resamples.
    block = max(1, min(resamples, 2_000_000 // n_clips))
    means = []
    for start in range(0, resamples, block):
        n_rows = min(block, resamples - start)
        drawn = generator.integers(0, n_clips, size=(n_rows, n_clips)) + n_clips * np.arange(n_rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_rows * n_clips).reshape(n_rows, n_clips)
        means.append(counts @ sample / n_clips)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _some(values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise EvaluationError("no clip is left to score; check that the boxes and the maps belong to the same clips")
    return array
