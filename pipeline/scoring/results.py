"""Per-clip scores under one protocol, and their flat summary.

Conventions
-----------
One float64 fraction per clip. Intervals are 95% percentile bootstrap over clips. `pipeline.scoring.score` documents which
clips are scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.metrics import (
    FloatArray,
    auc,
    average_precision,
    bootstrap_interval,
    curve_of_each_clip,
    localization_accuracy,
    max_f1,
    succeeds,
    success_curve,
    worst_of_each_frame,
)
from pipeline.scoring.protocols import ScoringProtocol

COUNTS = (
    "n_clips",  # scored
    "n_skipped",  # maps that are not scored: sum of the next two
    "n_skipped_silent",  # no sounding box
    "n_skipped_empty",  # sounding boxes, but no pixel on the grid
    "n_missing_maps",  # clips with sounding boxes for which no map was given
    "n_flat_maps",  # scored maps without contrast
    "n_boxes_outside",  # sounding boxes with no pixel on the grid
)


@dataclass(frozen=True)
class Scores:
    """Scores of each clip under one protocol.

    Parameters
    ----------
    protocol : ScoringProtocol
        The protocol.
    threshold : float
        cIoU from which a clip counts as a success.
    legacy_float : bool
        See `pipeline.scoring.metrics.succeeds`.
    clip_ids : tuple of str
        The scored clips, in the order of the maps.
    ciou, iou, pointing : float64 arrays, shape (clip,), in [0, 1]
        See `pipeline.scoring.metrics`. `pointing` is 1 if the map's peak is inside a sounding box, else 0. If several
        pixels tie for the peak, it is the share of them inside the boxes. So a flat map scores the boxes' share of the
        frame, the expected value of pointing at random.
    counts : dict
        See `COUNTS`.
    extra : dict of str to float64 array
        "confidence" (clip,) and "silent_confidence" (silent clip,) for SLAVC's metrics; "nsa_agnostic" or "nsa" (clip,)
        for MUSIC-Synthetic, NaN if nothing is silent; "quadrant" and "quadrant_chance" (clip,) for mosaics, see
        `pipeline.scoring.quadrants.QuadrantScore`.
    """

    protocol: ScoringProtocol
    threshold: float
    legacy_float: bool
    clip_ids: tuple[str, ...]
    ciou: FloatArray
    iou: FloatArray
    pointing: FloatArray
    counts: dict[str, int]
    extra: dict[str, FloatArray]

    @property
    def success(self) -> NDArray[np.bool_]:
        """Whether each clip reaches the threshold."""
        return succeeds(self.ciou, self.threshold, legacy_float=self.legacy_float)

    @property
    def curve(self) -> FloatArray:
        """Success rate at `pipeline.scoring.metrics.THRESHOLDS`, shape (21,)."""
        return success_curve(self.ciou, legacy_float=self.legacy_float)


def summarize(scores: Scores, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return flat metrics as in scores.json.

    Parameters
    ----------
    scores : Scores
    resamples, seed : int
        See `pipeline.scoring.metrics.bootstrap_interval`.

    Returns
    -------
    dict
        ``success_rate, auc, mean_ciou, mean_iou, pointing_accuracy``, each with ``_low`` and ``_high`` (bootstrap 95%
        over clips); the `COUNTS`; ``protocol``; ``threshold``. For mosaics also ``quadrant_accuracy``, with its interval,
        and ``quadrant_chance``, its value for cells chosen at random. Depending on the protocol also ``iiou, iauc`` (intervals
        over frames) and ``n_frames``; ``average_precision, max_f1, localization_accuracy``, always at the protocol's own
        threshold; ``nsa`` or ``nsa_agnostic``. A metric that is undefined for every clip is left out.
    """
    summary: dict[str, Any] = {}
    for sample in samples(scores):
        summary |= with_intervals(sample, resamples=resamples, seed=seed)
        if "iiou" in sample:
            summary["n_frames"] = len(sample["iiou"])
    if "slavc" in scores.protocol.extras:
        detection = (scores.ciou, scores.extra["confidence"], scores.extra.get("silent_confidence", np.zeros(0)))
        # SLAVC defines these metrics at its own threshold, so the caller's threshold does not apply.
        in_place = scores.protocol.success_threshold
        summary["average_precision"] = average_precision(*detection, threshold=in_place)
        summary["max_f1"] = max_f1(*detection, threshold=in_place)
        summary["localization_accuracy"] = localization_accuracy(scores.ciou, threshold=in_place)
    if "quadrant" in scores.extra:
        summary["quadrant_chance"] = float(np.mean(scores.extra["quadrant_chance"]))
    return summary | scores.counts | {"protocol": scores.protocol.name, "threshold": scores.threshold}


def samples(scores: Scores) -> list[dict[str, FloatArray]]:
    """Return the per-clip (or per-frame) values that the metrics are means of; NaN where a value is undefined.

    The metrics of one mapping have the same clips or frames and share their bootstrap resamples. SLAVC's metrics are not
    means over clips, so they are not included.
    """
    legacy = scores.legacy_float
    found: list[dict[str, NDArray]] = [
        {
            "success_rate": scores.success,
            "auc": auc(curve_of_each_clip(scores.ciou, legacy_float=legacy)),
            "mean_ciou": scores.ciou,
            "mean_iou": scores.iou,
            "pointing_accuracy": scores.pointing,
        }
    ]
    if "quadrant" in scores.extra:
        found[0]["quadrant_accuracy"] = scores.extra["quadrant"]
    if "iiou" in scores.protocol.extras:
        worst = worst_of_each_frame(scores.ciou, scores.clip_ids)
        success = succeeds(worst, scores.threshold, legacy_float=legacy)
        found.append({"iiou": success, "iauc": auc(curve_of_each_clip(worst, legacy_float=legacy))})
    found += [{name: scores.extra[name]} for name in ("nsa", "nsa_agnostic") if name in scores.extra]
    return [{name: np.asarray(values, dtype=np.float64) for name, values in sample.items()} for sample in found]


def with_intervals(sample: Mapping[str, FloatArray], *, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Return mean, ``_low`` and ``_high`` of each metric in one of `samples`; empty if no clip has a value."""
    table = np.stack(list(sample.values()), axis=1)
    table = table[~np.isnan(table).any(axis=1)]
    if not len(table):
        return {}
    low, high = bootstrap_interval(table, resamples=resamples, seed=seed)
    result: dict[str, float] = {}
    for name, mean, lower, upper in zip(sample, table.mean(axis=0), low, high, strict=True):
        result |= {name: float(mean), f"{name}_low": float(lower), f"{name}_high": float(upper)}
    return result
