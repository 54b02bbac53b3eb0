"""Metrics of sound localization: one number from the regions, boxes or cIoU values of clips.

Metrics
-------
- `ciou_and_iou`: consensus IoU (Senocak et al., CVPR 2018) and plain IoU of one clip.
- `success_curve`, `auc`: success rate at 21 cIoU thresholds, and the area below it (same source).
- `precision_recall`, `average_precision`, `max_f1`, `localization_accuracy`: detection with silent clips (SLAVC, Mo and
  Morgado, NeurIPS 2022).
- `worst_of_each_frame`: interactive IoU (IIoU), all clips of a frame must succeed (SSLalignment, Senocak et al.).
- `bootstrap_interval`: confidence interval of a mean over clips.

Pointing accuracy, quadrant accuracy and the non-sounding area (NSA, DSOL) need the response map itself: see
`pipeline.scoring.score`, `pipeline.scoring.quadrants` and `pipeline.scoring.class_maps`.

Conventions
-----------
Arrays have one value per clip and are float64. Scores are fractions, not percent. Where public evaluation code does
something unexpected, it is reproduced and documented. AUC is the trapezoid over 21 thresholds, not the mean of the 21
values. A cIoU of NaN never succeeds; no other function accepts NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.common.errors import EvaluationError
from pipeline.scoring.ground_truth import GroundTruth

FloatArray = NDArray[np.float64]
CURVE_STEPS = 20
THRESHOLDS = np.arange(CURVE_STEPS + 1) / CURVE_STEPS  # cIoU thresholds of a success curve: 0, 1/20, …, 1
# Two fractions closer than this are equal: 3/10 computed with different roundings is still 0.3.
TOLERANCE = 1e-12


def ciou_and_iou(region: NDArray[np.bool_], truth: GroundTruth) -> tuple[float, float]:
    """Return consensus IoU and plain IoU of one predicted region.

    Parameters
    ----------
    region : bool array, shape (row, col)
        The predicted sounding region P.
    truth : GroundTruth
        Consensus map g with the values 0, 1/2 and 1; at least one pixel has g > 0.

    Returns
    -------
    ciou : float
        Σ(P·g) / (Σg + Σ(P·[g = 0])). A pixel with g = 1/2 counts half, but is not a false positive.
    iou : float
        Intersection over union of P and the support g > 0.
    """
    # Counting set pixels is many times faster than summing float maps.
    in_support = int(np.count_nonzero(region & truth.support))
    in_full = in_support if truth.full is truth.support else int(np.count_nonzero(region & truth.full))
    false_positives = int(np.count_nonzero(region)) - in_support
    hit = (in_support + in_full) / 2
    return hit / (truth.mass + false_positives), in_support / (truth.n_support + false_positives)


def succeeds(cious: ArrayLike, threshold: float, *, legacy_float: bool = False) -> NDArray[np.bool_]:
    """Return which clips reach a cIoU threshold.

    Parameters
    ----------
    cious : array_like of float
        cIoU of each clip; NaN never succeeds.
    threshold : float in [0, 1]
        Smallest cIoU of a success.
    legacy_float : bool
        Public code compares with ``0.05 * i`` in floating point. ``0.05 * 6`` is 0.30000000000000004, so a cIoU of
        exactly 0.3 fails there. True reproduces this for multiples of 0.05. False compares with a tolerance of 1e-12,
        so that 0.3 reaches 0.3.
    """
    values = np.asarray(cious, dtype=np.float64)
    if not legacy_float:
        return values >= threshold - TOLERANCE
    # Public code has no other thresholds, so there is no quirk to reproduce between multiples of 0.05.
    step = round(threshold * CURVE_STEPS)
    on_grid = abs(step / CURVE_STEPS - threshold) < TOLERANCE
    return values >= (0.05 * step if on_grid else threshold)


def success_curve(cious: ArrayLike, *, legacy_float: bool = False) -> FloatArray:
    """Return the success rate at each of `THRESHOLDS`.

    Returns
    -------
    float64 array, shape (..., 21)
        Averaged over the last axis of `cious`, the clips.
    """
    return curve_of_each_clip(_not_empty(cious), legacy_float=legacy_float).mean(axis=-2)


def curve_of_each_clip(cious: ArrayLike, *, legacy_float: bool = False) -> FloatArray:
    """Return the success (0 or 1) of each clip at each of `THRESHOLDS`, shape (..., clip, 21)."""
    values = np.asarray(cious, dtype=np.float64)
    steps = [succeeds(values, k / CURVE_STEPS, legacy_float=legacy_float) for k in range(CURVE_STEPS + 1)]
    return np.stack(steps, axis=-1).astype(np.float64)


def auc(curve: ArrayLike) -> FloatArray:
    """Return the area under a success curve by the trapezoid rule, shape (..., 21) → (...), in [0, 1]."""
    y = np.asarray(curve, dtype=np.float64)
    if y.shape[-1] != CURVE_STEPS + 1:
        raise EvaluationError(f"a success curve has {CURVE_STEPS + 1} values, got {y.shape[-1]}")
    # Trapezoid rule with equal steps: the two end points count half.
    return (y.sum(axis=-1) - 0.5 * (y[..., 0] + y[..., -1])) / CURVE_STEPS


def precision_recall(
    cious: ArrayLike, confidences: ArrayLike, silent_confidences: ArrayLike, *, at: ArrayLike, threshold: float = 0.5
) -> tuple[FloatArray, FloatArray]:
    """Return SLAVC's detection precision and recall: a clip is detected if its confidence reaches a cut.

    Parameters
    ----------
    cious, confidences : array_like of float, shape (clip,)
        Of the clips with a sounding object.
    silent_confidences : array_like of float, shape (silent clip,)
        Of the clips without one.
    at : array_like of float, shape (k,)
        Confidence cuts.
    threshold : float
        cIoU from which a detection is in the right place.

    Returns
    -------
    precision, recall : float64 arrays, shape (k,)
        A detection in the wrong place counts as a false positive but not as a miss, so recall reaches 1 as soon as
        every clip is detected, wherever. 1 where the denominator is 0.
    """
    cut = np.asarray(at, dtype=np.float64)[:, None]
    found = np.asarray(confidences, dtype=np.float64)[None, :] >= cut
    right = succeeds(cious, threshold)[None, :]
    true_positives = (found & right).sum(axis=1)
    false_alarms = (np.asarray(silent_confidences, dtype=np.float64)[None, :] >= cut).sum(axis=1)
    false_positives = (found & ~right).sum(axis=1) + false_alarms
    # A detection in the wrong place is not a miss, as in the public code.
    misses = (~found).sum(axis=1)
    return _share(true_positives, false_positives), _share(true_positives, misses)


def average_precision(
    cious: ArrayLike, confidences: ArrayLike, silent_confidences: ArrayLike, *, threshold: float = 0.5
) -> float:
    """Return SLAVC's average precision over about 200 descending confidence cuts.

    The area is Σ max_{k≥i} precision_k · (recall_{i+1} - recall_i). As in the public code, the first segment (up to the
    recall at the highest confidence) is not in the sum, so a constant confidence scores 0. 0 for fewer than three
    clips. See `precision_recall` for the parameters.
    """
    everything = np.sort(np.concatenate([np.asarray(confidences, float), np.asarray(silent_confidences, float)]))
    cuts = everything[:-1][:: -max(1, len(everything) // 200)]
    if len(cuts) < 2:
        return 0.0
    precision, recall = precision_recall(cious, confidences, silent_confidences, at=cuts, threshold=threshold)
    # Interpolated precision: the best at this recall or any higher one.
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(best_from_here[:-1] * np.diff(recall)))


def max_f1(cious: ArrayLike, confidences: ArrayLike, silent_confidences: ArrayLike, *, threshold: float = 0.5) -> float:
    """Return SLAVC's max-F1 over about ten confidence cuts. See `precision_recall` for the parameters."""
    everything = np.sort(np.concatenate([np.asarray(confidences, float), np.asarray(silent_confidences, float)]))
    cuts = everything[:: max(1, len(everything) // 10)]
    precision, recall = precision_recall(cious, confidences, silent_confidences, at=cuts, threshold=threshold)
    total = precision + recall
    return float(np.max(np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1.0), 0.0)))


def localization_accuracy(cious: ArrayLike, *, threshold: float = 0.5) -> float:
    """Return SLAVC's LocAcc: the share of sounding clips whose cIoU is strictly above the threshold."""
    return float(np.mean(np.asarray(cious, dtype=np.float64) > threshold))


def frame_of(clip_id: str) -> str:
    """Return the frame of an IS3 clip: its id without the last ``_`` token, or the whole id if it has only one."""
    return clip_id.rpartition("_")[0] or clip_id


def worst_of_each_frame(cious: ArrayLike, clip_ids: Sequence[str]) -> FloatArray:
    """Return the smallest cIoU among the clips of each frame, in the order of first appearance.

    IIoU is the success rate of these values: a frame succeeds if all its clips do, that is, if the worst one does.
    """
    values = np.asarray(cious, dtype=np.float64)
    frames: dict[str, float] = {}
    for clip_id, value in zip(clip_ids, values.tolist(), strict=True):
        frame = frame_of(clip_id)
        frames[frame] = min(frames.get(frame, value), value)
    return np.array(list(frames.values()), dtype=np.float64)


def bootstrap_interval(
    values: ArrayLike, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the percentile bootstrap interval of a mean over clips.

    Parameters
    ----------
    values : array_like of float, shape (clip,) or (clip, metric)
        One value per clip; the metrics of one call share their resamples.
    resamples : int
        Number of resamples.
    seed : int
        Seed of the random generator.
    level : float in (0, 1)
        Coverage.

    Returns
    -------
    low, high : float64 arrays, shape () or (metric,)
    """
    sample = _not_empty(values)
    n_clips = len(sample)
    generator = np.random.default_rng(seed)
    # Count how often each clip is drawn and multiply by the values: one matrix product per block of resamples. The
    # block bounds the memory.
    block = max(1, min(resamples, 2_000_000 // n_clips))
    means = []
    for start in range(0, resamples, block):
        n_rows = min(block, resamples - start)
        drawn = generator.integers(0, n_clips, size=(n_rows, n_clips)) + n_clips * np.arange(n_rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_rows * n_clips).reshape(n_rows, n_clips)
        means.append(counts @ sample / n_clips)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _share(part: NDArray, rest: NDArray) -> FloatArray:
    total = part + rest
    return np.where(total > 0, part / np.where(total > 0, total, 1), 1.0)


def _not_empty(values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise EvaluationError("no clip is left to score; check that the boxes and the maps belong to the same clips")
    return array
