"""Scores of methods with one response map per class, such as DSOL on MUSIC-Synthetic.

Conventions
-----------
Class maps are float (clip, class, row, col), non-negative, and comparable between the classes of a clip (DSOL: softmax
over classes). They are not normalized, because a silent class must stay low. The `source` of a box is its class.

Source: DSOL (Hu et al., NeurIPS 2020), its public evaluation of MUSIC-Synthetic. Unlike there, each class has exactly one
map, so no silent class is missed and no sounding class counts as silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.common.errors import EvaluationError
from pipeline.manifests.boxes import Box
from pipeline.scoring.ground_truth import ground_truth
from pipeline.scoring.metrics import ciou_and_iou
from pipeline.scoring.protocols import ScoringProtocol
from pipeline.scoring.results import COUNTS, Scores
from pipeline.scoring.scorable import check_scorable, group_sounding_boxes
from pipeline.scoring.score import SILENCE, checked_maps
from pipeline.scoring.upsampling import upsample


def score_class_maps(
    maps: NDArray,
    class_names: Sequence[str],
    clip_ids: Sequence[str],
    boxes: Iterable[Box],
    protocol: ScoringProtocol,
    *,
    threshold: float | None = None,
    legacy_float: bool = False,
) -> Scores:
    """Score each sounding class's map against its own boxes.

    Parameters
    ----------
    maps : float array, shape (clip, class, row, col)
        Response maps; finite.
    class_names : sequence of str, length class
        Names along the class axis. A sounding box of any other class is an error.
    clip_ids, boxes, threshold, legacy_float
        See `pipeline.scoring.score.score_all`.
    protocol : ScoringProtocol
        Must have the consensus "per-source" and the threshold rule "relative-to-max".

    Returns
    -------
    Scores
        cIoU, IoU and pointing of a clip are means over its sounding classes. ``extra["nsa"]`` (non-sounding area) is
        the share of pixels at most 0.2, averaged over its silent classes; NaN if every class sounds.

    Raises
    ------
    EvaluationError
        The protocol does not fit, shapes disagree, a box has an unknown class, or no clip is left to score.
    """
    if protocol.consensus != "per-source" or protocol.threshold_rule != "relative-to-max":
        raise EvaluationError(f"protocol {protocol.name} does not support class maps; use music-synthetic-a")
    maps = checked_maps(maps, clip_ids, n_axes=4)
    if maps.ndim != 4 or maps.shape[1] != len(class_names):
        raise EvaluationError(f"class maps must have shape (clip, {len(class_names)}, row, col), got {maps.shape}")
    boxes = list(boxes)
    check_scorable(clip_ids, boxes, protocol)
    by_clip = group_sounding_boxes(boxes)
    # The same counts as for methods with one map per clip, so that their summaries have the same keys.
    counts = dict.fromkeys(COUNTS, 0) | {"n_missing_maps": len(by_clip.keys() - set(clip_ids))}
    scored: list[str] = []
    rows: list[tuple[float, ...]] = []
    for clip_id, clip_maps in zip(clip_ids, maps, strict=True):
        row = _score_clip(clip_maps, class_names, by_clip.get(clip_id, []), protocol, counts)
        if row is not None:
            scored.append(clip_id)
            rows.append(row)
    counts |= {"n_clips": len(rows), "n_skipped": len(clip_ids) - len(rows)}
    ciou, iou, pointing, nsa = np.array(rows, dtype=np.float64).T
    return Scores(
        protocol=protocol,
        threshold=protocol.success_threshold if threshold is None else threshold,
        legacy_float=legacy_float,
        clip_ids=tuple(scored),
        ciou=ciou,
        iou=iou,
        pointing=pointing,
        counts=counts,
        extra={"nsa": nsa},
    )


def _score_clip(
    clip_maps: NDArray, class_names: Sequence[str], boxes: list[Box], protocol: ScoringProtocol, counts: dict[str, int]
) -> tuple[float, ...] | None:
    """Return cIoU, IoU, pointing and NSA of one clip; None, and a count in `counts`, if it cannot be scored."""
    sources = list(dict.fromkeys(box.source for box in boxes))
    unknown = [source for source in sources if source not in class_names]
    if unknown:
        raise EvaluationError(
            f"clip {boxes[0].clip_id!r}: a sounding box has the class {unknown[0]!r}, which has no map; "
            f"classes with maps: {', '.join(class_names)}"
        )
    truths = ground_truth(boxes, protocol.size, rounding=protocol.rounding, consensus=protocol.consensus)
    counts["n_boxes_outside"] += sum(truth.n_outside for truth in truths)
    parts = [(source, truth) for source, truth in zip(sources, truths, strict=True) if truth.n_support]
    if not parts:
        counts["n_skipped_empty" if truths else "n_skipped_silent"] += 1
        return None
    # All classes, not only the sounding ones: NSA needs the silent ones.
    upsampled = {name: upsample(one, protocol) for name, one in zip(class_names, clip_maps, strict=True)}
    values = []
    for source, truth in parts:
        class_map = upsampled[source]
        # Tied pixels share the peak, as in `Scores.pointing`.
        peak = class_map == class_map.max()
        counts["n_flat_maps"] += bool(peak.all())
        # The maximum may be far below 1, because classes compete in a softmax; hence relative to the maximum.
        region = class_map > np.float32(protocol.map_threshold * float(class_map.max()))
        values.append((*ciou_and_iou(region, truth), float(truth.support[peak].mean())))
    quiet = [float(np.mean(one <= SILENCE)) for name, one in upsampled.items() if name not in sources]
    return (*(float(value) for value in np.mean(values, axis=0)), float(np.mean(quiet)) if quiet else float("nan"))
