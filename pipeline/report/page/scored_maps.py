"""One method's maps of scored clips over the epochs: localize with every kept checkpoint, score, and encode for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.epoch_maps import checkpoint_maps
from pipeline.manifests.boxes import Box
from pipeline.report.examples import Scored
from pipeline.report.page.encoding import map_base64, map_change
from pipeline.report.source import Source
from pipeline.scoring.ground_truth import ground_truth
from pipeline.scoring.protocols import ScoringProtocol
from pipeline.scoring.score import score
from pipeline.scoring.upsampling import UpsampledMap, normalize, threshold_of


@dataclass(frozen=True)
class ScoredEpochs:
    """One method's maps of some clips over the epochs.

    Attributes
    ----------
    epochs : list of int
    response : np.ndarray [shape=(epoch, clip, row, col), dtype=float32]
        Raw response maps R.
    """

    epochs: list[int]
    response: np.ndarray


def localize_epochs(source: Source, method: Scored, clip_ids: Sequence[str]) -> ScoredEpochs:
    """Localize clips with every checkpoint that the run kept.

    The maps of the last epoch are not computed again: they are the ones that were scored.
    """
    earlier = checkpoint_maps(source.runs / method.name, source.scored_input, clip_ids, device=source.device)
    rows = [method.maps.clip_ids.index(clip_id) for clip_id in clip_ids]
    return ScoredEpochs(earlier.epochs, np.stack([*earlier.response, method.maps.response[rows]]))


def score_epochs(
    maps: ScoredEpochs,
    method: Scored,
    clip_ids: Sequence[str],
    boxes: Mapping[str, Sequence[Box]],
    rule: ScoringProtocol,
) -> list[Mapping[str, float]]:
    """Return clip → cIoU for each epoch; the last epoch keeps the scores of the evaluation."""
    all_boxes = [box for clip_id in clip_ids for box in boxes[clip_id]]
    scored = [score(response, clip_ids, all_boxes, rule) for response in maps.response[:-1]]
    return [*(dict(zip(each.clip_ids, each.ciou, strict=True)) for each in scored), method.ciou]


def encode_clips(
    maps: ScoredEpochs,
    ciou: Sequence[Mapping[str, float]],
    clip_ids: Sequence[str],
    boxes: Mapping[str, Sequence[Box]],
    rule: ScoringProtocol,
) -> list[dict[str, Any]]:
    """Return for each clip its ``maps``, ``levels`` and ``scores`` by epoch, and the ``change`` from first to last."""
    clips = []
    for place, clip_id in enumerate(clip_ids):
        drawn = [_draw(raw, boxes[clip_id], rule) for raw in maps.response[:, place]]
        clips.append(
            {
                "maps": [map_base64(cells) for cells, _, _ in drawn],
                "levels": [level for _, level, _ in drawn],
                "scores": [round(float(each[clip_id]), 4) for each in ciou],
                "change": map_change(drawn[0][2], drawn[-1][2]),
            }
        )
    return clips


def _draw(raw: np.ndarray, boxes: Sequence[Box], rule: ScoringProtocol) -> tuple[np.ndarray, float, np.ndarray]:
    """Return a map's cells in [0, 1], the threshold of its sounding region, and its upsampled values."""
    maps = normalize(raw[None], rule.normalization)
    upsampled = UpsampledMap(maps, 0, rule)
    # Some protocols choose the threshold by the area of the true region.
    truth = ground_truth(boxes, rule.size, rounding=rule.rounding, consensus="union")
    level = threshold_of(upsampled, rule, truth[0].n_support if truth else 0)
    return maps.cells[0], round(float(level), 5), upsampled.values
