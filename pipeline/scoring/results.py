"""What a protocol says about each clip, and the flat summary of it that is written down.

Conventions
-----------
One value per clip, float64, fractions; intervals are 95 % percentile bootstrap over clips. See `pipeline.scoring.score` for
which clips are scored.
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
from pipeline.scoring.protocols import Protocol

COUNTS = (
    "n_clips",  # scored
    "n_skipped",  # maps that are not scored: the next two together
    "n_skipped_silent",  # no sounding box
    "n_skipped_empty",  # sounding boxes, but no pixel on the grid
    "n_missing_maps",  # clips with sounding boxes for which no map was given
    "n_flat_maps",  # scored, without contrast
    "n_boxes_outside",  # sounding boxes of which nothing lies on the grid
)


@dataclass(frozen=True)
class Scores:
    """What one protocol says about each clip.

    Parameters
    ----------
    protocol : Protocol
        The rule.
    threshold : float
        cIoU from which a clip counts as a success.
    legacy_float : bool
        See `pipeline.scoring.metrics.succeeds`.
    clip_ids : tuple of str
        The scored clips, in the order of the maps.
    ciou, iou, pointing : float64 arrays, shape (clip,), in [0, 1]
        See `pipeline.scoring.metrics`. `pointing` is 1 where the map's peak lies in a sounding box and 0 elsewhere. When several
        pixels share the peak, it is the share of them inside the boxes; so a flat map scores the boxes' share of the
        frame, which is what pointing at random would get.
    counts : dict
        See `COUNTS`.
    extra : dict of str to float64 array
        "confidence" (clip,) and "silent_confidence" (silent clip,) for SLAVC's metrics; "nsa_agnostic" or "nsa" (clip,)
        for MUSIC-Synthetic, NaN where nothing is silent.
    """

    protocol: Protocol
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
        """Success rate at 0, 1/20, …, 1, shape (21,)."""
        return success_curve(self.ciou, legacy_float=self.legacy_float)


def summarize(scores: Scores, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Boil scores down to flat keys, as in metrics.json.

    Parameters
    ----------
    scores : Scores
        Of one protocol.
    resamples, seed : int
        Of the bootstrap, see `pipeline.scoring.metrics.bootstrap_interval`.

    Returns
    -------
    dict
        ``success_rate, auc, mean_ciou, mean_iou, pointing_accuracy``, each with ``_low`` and ``_high`` (bootstrap 95 %
        over clips); ``n_…`` of `COUNTS`; ``protocol``; ``threshold``. According to the protocol also ``iiou, iauc``
        (intervals over frames) and ``n_frames``; ``average_precision, max_f1, localization_accuracy``, at the protocol's own
        threshold whatever that of `scores`; ``nsa`` or ``nsa_agnostic``. A value that is not defined for any clip is left out.
    """
    summary: dict[str, Any] = {}
    for sample in samples(scores):
        summary |= with_intervals(sample, resamples=resamples, seed=seed)
        if "iiou" in sample:
            summary["n_frames"] = len(sample["iiou"])
    if "slavc" in scores.protocol.extras:
        detection = (scores.ciou, scores.extra["confidence"], scores.extra.get("silent_confidence", np.zeros(0)))
        # SLAVC's definitions: another threshold of success, which the caller may choose, does not make them other metrics.
        in_place = scores.protocol.success_threshold
        summary["average_precision"] = average_precision(*detection, threshold=in_place)
        summary["max_f1"] = max_f1(*detection, threshold=in_place)
        summary["localization_accuracy"] = localization_accuracy(scores.ciou, threshold=in_place)
    return summary | scores.counts | {"protocol": scores.protocol.name, "threshold": scores.threshold}


def samples(scores: Scores) -> list[dict[str, FloatArray]]:
    """Return what the metrics are means of: for each its values of the clips, or of the frames, NaN where there is none.

    The metrics of one mapping are of the same clips or frames, and share the resamples of their bootstrap. Those of SLAVC's metrics
    that are no such means are not among them.
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
    if "iiou" in scores.protocol.extras:
        worst = worst_of_each_frame(scores.ciou, scores.clip_ids)
        success = succeeds(worst, scores.threshold, legacy_float=legacy)
        found.append({"iiou": success, "iauc": auc(curve_of_each_clip(worst, legacy_float=legacy))})
    found += [{name: scores.extra[name]} for name in ("nsa", "nsa_agnostic") if name in scores.extra]
    return [{name: np.asarray(values, dtype=np.float64) for name, values in sample.items()} for sample in found]


def with_intervals(sample: Mapping[str, FloatArray], *, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Return mean, ``_low`` and ``_high`` of each metric of one of `samples`; nothing where no clip has a value."""
    table = np.stack(list(sample.values()), axis=1)
    table = table[~np.isnan(table).any(axis=1)]
    if not len(table):
        return {}
    low, high = bootstrap_interval(table, resamples=resamples, seed=seed)
    result: dict[str, float] = {}
    for name, mean, lower, upper in zip(sample, table.mean(axis=0), low, high, strict=True):
        result |= {name: float(mean), f"{name}_low": float(lower), f"{name}_high": float(upper)}
    return result
