"""Metric sets beyond cIoU: SLAVC's detection metrics, and interactive IoU.

Conventions
-----------
All arrays have one value per clip, float64; NaN is not allowed here. Sources: SLAVC (Mo and Morgado, NeurIPS 2022),
its public evaluation code; IIoU (Senocak et al., SSLalignment), its public evaluation code. Where that code does
something unexpected, it is kept, and said.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.scoring.metrics import FloatArray, succeeds


def precision_recall(
    cious: ArrayLike, confidences: ArrayLike, silent_confidences: ArrayLike, *, at: ArrayLike, threshold: float = 0.5
) -> tuple[FloatArray, FloatArray]:
    """Detection precision and recall when clips with at least some confidence are said to sound.

    Parameters
    ----------
    cious, confidences : array_like of float, shape (clip,)
        Of the clips with a sounding object.
    silent_confidences : array_like of float, shape (silent clip,)
        Of the clips without one.
    at : array_like of float, shape (k,)
        Confidences from which a clip is said to sound.
    threshold : float
        cIoU from which a detection is in the right place.

    Returns
    -------
    precision, recall : float64 arrays, shape (k,)
        A detection in the wrong place is a false positive only, not a miss as well, so recall reaches 1 once every
        clip is detected, wherever. 1 where nothing could be counted.
    """
    cut = np.asarray(at, dtype=np.float64)[:, None]
    found = np.asarray(confidences, dtype=np.float64)[None, :] >= cut
    right = succeeds(cious, threshold)[None, :]
    true_positives = (found & right).sum(axis=1)
    false_alarms = (np.asarray(silent_confidences, dtype=np.float64)[None, :] >= cut).sum(axis=1)
    false_positives = (found & ~right).sum(axis=1) + false_alarms
    misses = (~found).sum(axis=1)
    return _share(true_positives, false_positives), _share(true_positives, misses)


def average_precision(
    cious: ArrayLike, confidences: ArrayLike, silent_confidences: ArrayLike, *, threshold: float = 0.5
) -> float:
    """SLAVC's average precision over about 200 descending confidences.

    The area Σ max_{k≥i} precision_k · (recall_{i+1} - recall_i); its first segment, up to the recall at the highest
    confidence, is not in the sum, as in the public code, so a constant confidence scores 0. 0 for
    fewer than three clips. See `precision_recall` for the parameters.
    """
    everything = np.sort(np.concatenate([np.asarray(confidences, float), np.asarray(silent_confidences, float)]))
    cuts = everything[:-1][:: -max(1, len(everything) // 200)]
    if len(cuts) < 2:
        return 0.0
    precision, recall = precision_recall(cious, confidences, silent_confidences, at=cuts, threshold=threshold)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(best_from_here[:-1] * np.diff(recall)))


def max_f1(cious: ArrayLike, confidences: ArrayLike, silent_confidences: ArrayLike, *, threshold: float = 0.5) -> float:
    """Largest F1 over about ten confidences spread over the clips. See `precision_recall` for the parameters."""
    everything = np.sort(np.concatenate([np.asarray(confidences, float), np.asarray(silent_confidences, float)]))
    cuts = everything[:: max(1, len(everything) // 10)]
    precision, recall = precision_recall(cious, confidences, silent_confidences, at=cuts, threshold=threshold)
    total = precision + recall
    return float(np.max(np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1.0), 0.0)))


def localization_accuracy(cious: ArrayLike, *, threshold: float = 0.5) -> float:
    """SLAVC's LocAcc: the share of sounding clips whose cIoU is above the threshold, strictly."""
    return float(np.mean(np.asarray(cious, dtype=np.float64) > threshold))


def frame_of(clip_id: str) -> str:
    """Return the frame that a clip of IS3 belongs to: its id without the last ``_`` token, or all of it without one."""
    return clip_id.rpartition("_")[0] or clip_id


def worst_of_each_frame(cious: ArrayLike, clip_ids: Sequence[str]) -> FloatArray:
    """Return the smallest cIoU of each frame's clips, in the order of first appearance.

    A frame succeeds at a threshold when all its clips do, thus when the worst does.
    """
    values = np.asarray(cious, dtype=np.float64)
    frames: dict[str, float] = {}
    for clip_id, value in zip(clip_ids, values.tolist(), strict=True):
        frame = frame_of(clip_id)
        frames[frame] = min(frames.get(frame, value), value)
    return np.array(list(frames.values()), dtype=np.float64)


def _share(part: NDArray, rest: NDArray) -> FloatArray:
    total = part + rest
    return np.where(total > 0, part / np.where(total > 0, total, 1), 1.0)
