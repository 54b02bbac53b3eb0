"""Response maps and boxes → scores, under any protocol.

Conventions
-----------
Maps are raw responses, float (clip, row, col), or sounding regions, bool (clip, row, col). A single map (row, col) is
used for every clip. Boxes are fractions of the full frame; those with ``sounding`` False are not part of the ground
truth. Scores are float64 fractions.

Degenerate cases, counted in `Scores.counts`:

- A clip without a sounding box is silent. It is skipped, but SLAVC's metrics use its confidence.
- A clip whose boxes have no pixel on the grid is skipped. So is a clip that has boxes but no map.
- A map without contrast is 0 everywhere after normalization (1 if positive under "relu-max"). ``>`` then predicts
  nothing, and the median rule with ``>=`` predicts everything. Its pointing is the boxes' share of the frame.

A value that is not finite raises an error that names the clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.common.errors import EvaluationError
from pipeline.manifests.boxes import Box
from pipeline.scoring.ground_truth import GroundTruth, box_edges, ground_truth
from pipeline.scoring.metrics import ciou_and_iou
from pipeline.scoring.protocols import Consensus, Rounding, ScoringProtocol
from pipeline.scoring.quadrants import QuadrantScore, quadrant_scores
from pipeline.scoring.results import COUNTS, Scores, summarize
from pipeline.scoring.scorable import check_scorable, group_sounding_boxes
from pipeline.scoring.upsampling import UpsampledMap, UpsamplingKey, normalize, sounding_pixels, upsampling_key

__all__ = ["Scores", "score", "score_all", "summarize"]

CHUNK = 256  # maps normalized together, to bound memory
Grid = tuple[int, Rounding]  # side in pixels, rounding of box edges
SILENCE = 0.2  # DSOL: a normalized response at most this high counts as silence


def score(
    maps: NDArray,
    clip_ids: Sequence[str],
    boxes: Iterable[Box],
    protocol: ScoringProtocol,
    *,
    threshold: float | None = None,
    legacy_float: bool = False,
    grid: int | None = None,
) -> Scores:
    """Score response maps under one protocol. See `score_all`."""
    scores = score_all(maps, clip_ids, boxes, [protocol], threshold=threshold, legacy_float=legacy_float, grid=grid)
    return scores[protocol.name]


def score_all(
    maps: NDArray,
    clip_ids: Sequence[str],
    boxes: Iterable[Box],
    protocols: Iterable[ScoringProtocol],
    *,
    threshold: float | None = None,
    legacy_float: bool = False,
    grid: int | None = None,
) -> dict[str, Scores]:
    """Score response maps under several protocols; each map is upsampled once per distinct `upsampling_key`.

    Parameters
    ----------
    maps : float or bool array, shape (clip, row, col) or (row, col)
        Finite raw response maps; bool maps are sounding regions. One map (row, col) is scored for every clip.
    clip_ids : sequence of str
        Clip of each map; unique.
    boxes : iterable of Box
        Ground truth. Clips that have boxes but no map are counted.
    protocols : iterable of ScoringProtocol
    threshold : float, optional
        cIoU from which a clip counts as a success; by default each protocol's own.
    legacy_float : bool
        Compare as public code does, see `pipeline.scoring.metrics.succeeds`.
    grid : int, optional
        Cells per side of the frames if they are mosaics; adds quadrant accuracy, see `pipeline.scoring.quadrants`.

    Returns
    -------
    dict of str to Scores
        By protocol name, in the order given.

    Raises
    ------
    EvaluationError
        Shapes disagree, an id occurs twice, a value is not finite, or no clip is left to score under a protocol.
    """
    maps = checked_maps(maps, clip_ids, n_axes=3)
    boxes, protocols = list(boxes), list(protocols)
    for protocol in protocols:
        check_scorable(clip_ids, boxes, protocol)
    sounding = group_sounding_boxes(boxes)
    n_missing = len(sounding.keys() - set(clip_ids))
    # Boxes are rounded once per grid, whatever the number of protocols on it.
    tallies = [_Tally(protocol) for protocol in protocols]
    edges = {grid: _edges_by_clip(sounding, *grid) for grid in dict.fromkeys(tally.grid for tally in tallies)}
    # Maps are upsampled one by one. For matrices this small, BLAS threads are ten times slower than a single thread.
    with threadpool_limits(1, user_api="blas"):
        if maps.ndim == 2:
            _add_chunk(tallies, maps[None], clip_ids, sounding, edges)
        else:
            for start in range(0, len(clip_ids), CHUNK):
                _add_chunk(tallies, maps[start : start + CHUNK], clip_ids[start : start + CHUNK], sounding, edges)
    quadrants = quadrant_scores(maps, clip_ids, sounding, grid) if grid else {}
    return {
        tally.protocol.name: tally.finish(
            threshold=threshold, legacy_float=legacy_float, n_missing=n_missing, quadrants=quadrants
        )
        for tally in tallies
    }


def score_rules(
    maps: NDArray,
    clip_ids: Sequence[str],
    boxes: Iterable[Box],
    rules: Mapping[str, ScoringProtocol],
    *,
    threshold: float,
    grid: int | None = None,
) -> dict[str, Scores]:
    """Score response maps under several protocols, keyed as `rules` is. See `score_all`."""
    scores = score_all(maps, clip_ids, boxes, rules.values(), threshold=threshold, grid=grid)
    return {key: scores[protocol.name] for key, protocol in rules.items()}


def _edges_by_clip(
    sounding: Mapping[str, Sequence[Box]], size: int, rounding: Rounding
) -> dict[str, list[Sequence[int]]]:
    """Round the boxes of all clips in one call, which is faster than clip by clip."""
    edges = iter(box_edges([box for boxes in sounding.values() for box in boxes], size, rounding=rounding))
    return {clip_id: list(islice(edges, len(boxes))) for clip_id, boxes in sounding.items()}


def _add_chunk(
    tallies: list[_Tally],
    maps: NDArray,
    clip_ids: Sequence[str],
    sounding: Mapping[str, Sequence[Box]],
    edges: Mapping[Grid, Mapping[str, Sequence[Sequence[int]]]],
) -> None:
    """Score a chunk of clips under every protocol; `maps` has one map per clip, or a single map for all."""
    shared = len(maps) == 1
    normalized = {t.upsampling[0]: normalize(maps, t.protocol.normalization) for t in tallies}
    upsampled: dict[UpsamplingKey, UpsampledMap] = {}
    for index, clip_id in enumerate(clip_ids):
        truths: dict[tuple[Grid, Consensus], list[GroundTruth]] = {}
        # Protocols with the same key share the upsampled map of a clip, and those with the same grid its ground truth.
        if not shared:
            upsampled.clear()
        for tally in tallies:
            protocol, key = tally.protocol, tally.upsampling
            if key not in upsampled:
                upsampled[key] = UpsampledMap(normalized[key[0]], 0 if shared else index, protocol)
            if tally.truth not in truths:
                truths[tally.truth] = ground_truth(
                    sounding.get(clip_id, ()),
                    protocol.size,
                    rounding=protocol.rounding,
                    consensus=protocol.consensus,
                    edges=edges[tally.grid].get(clip_id, ()),
                )
            tally.add(clip_id, upsampled[key], truths[tally.truth])


@dataclass
class _Tally:
    """Collects the scores of one protocol clip by clip."""

    protocol: ScoringProtocol
    clip_ids: list[str] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)
    extra: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))

    def __post_init__(self) -> None:
        self.upsampling = upsampling_key(self.protocol)
        self.grid: Grid = (self.protocol.size, self.protocol.rounding)
        self.truth = (self.grid, self.protocol.consensus)

    def add(self, clip_id: str, upsampled: UpsampledMap, truths: list[GroundTruth]) -> None:
        self.counts["n_boxes_outside"] += sum(truth.n_outside for truth in truths)
        # Sources whose boxes have no pixel on the grid cannot be found by any map.
        parts = [truth for truth in truths if truth.n_support]
        if not parts:
            self.counts["n_skipped_empty" if truths else "n_skipped_silent"] += 1
            if not truths and "slavc" in self.protocol.extras:
                self._note("silent_confidence", upsampled.confidence)
            return
        self.counts["n_flat_maps"] += upsampled.flat
        sounding = parts[0].support if len(parts) == 1 else np.any([part.support for part in parts], axis=0)
        ciou = iou = 0.0
        for part in parts:
            part_ciou, part_iou = ciou_and_iou(sounding_pixels(upsampled, self.protocol, part.n_support), part)
            ciou, iou = ciou + part_ciou, iou + part_iou
        # Tied pixels share the peak.
        pointing = int(np.count_nonzero(sounding.ravel()[upsampled.peak])) / len(upsampled.peak)
        self.clip_ids.append(clip_id)
        self.rows.append((ciou / len(parts), iou / len(parts), pointing))
        if "slavc" in self.protocol.extras:
            self._note("confidence", upsampled.confidence)
        if "nsa" in self.protocol.extras:
            self._note("nsa_agnostic", _quiet_share(upsampled, ~sounding))

    def _note(self, name: str, value: float) -> None:
        self.extra.setdefault(name, []).append(value)

    def finish(
        self, *, threshold: float | None, legacy_float: bool, n_missing: int, quadrants: Mapping[str, QuadrantScore]
    ) -> Scores:
        counts = dict(self.counts, n_clips=len(self.rows), n_missing_maps=n_missing)
        counts["n_skipped"] = counts["n_skipped_silent"] + counts["n_skipped_empty"]
        ciou, iou, pointing = np.array(self.rows, dtype=np.float64).T
        extra = dict(self.extra)
        if quadrants:
            extra["quadrant"] = [quadrants[clip_id].hit for clip_id in self.clip_ids]
            extra["quadrant_chance"] = [quadrants[clip_id].chance for clip_id in self.clip_ids]
        return Scores(
            protocol=self.protocol,
            threshold=self.protocol.success_threshold if threshold is None else threshold,
            legacy_float=legacy_float,
            clip_ids=tuple(self.clip_ids),
            ciou=ciou,
            iou=iou,
            pointing=pointing,
            counts=counts,
            extra={name: np.array(values, dtype=np.float64) for name, values in extra.items()},
        )


def _quiet_share(upsampled: UpsampledMap, silent: NDArray[np.bool_]) -> float:
    """Return the share of pixels outside all sounding boxes that are at most `SILENCE`; NaN if there are none."""
    n_silent = int(np.count_nonzero(silent))
    return int(np.count_nonzero((upsampled.values <= SILENCE) & silent)) / n_silent if n_silent else float("nan")


def checked_maps(maps: NDArray, clip_ids: Sequence[str], *, n_axes: int) -> NDArray:
    """Return the maps as an array after checking shape, ids and finiteness; `n_axes` includes the clip axis."""
    array = np.asarray(maps)
    single = array.ndim == n_axes - 1
    if array.ndim not in (n_axes - 1, n_axes) or 0 in array.shape[-2:]:
        raise EvaluationError(f"response maps must have {n_axes} axes (clip first), got shape {array.shape}")
    if not single and len(array) != len(clip_ids):
        raise EvaluationError(
            f"got {len(array)} response maps for {len(clip_ids)} clip ids; each clip needs exactly one"
        )
    if len(set(clip_ids)) != len(clip_ids):
        twice = next(clip_id for clip_id, count in Counter(clip_ids).items() if count > 1)
        raise EvaluationError(f"clip id {twice!r} occurs twice; each clip needs exactly one response map")
    if array.dtype != bool:
        finite = np.atleast_1d(np.isfinite(array).all(axis=tuple(range(0 if single else 1, array.ndim))))
        if not finite.all():
            name = "the response map" if single else f"the response map of clip {clip_ids[int(np.argmin(finite))]!r}"
            raise EvaluationError(
                f"{name} has a value that is not finite; the model has diverged or the file is damaged"
            )
    return array
