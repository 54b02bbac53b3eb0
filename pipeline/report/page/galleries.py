"""The page's two galleries, both over the epochs: scored clips with maps, training clips with pseudo-labels.

Conventions
-----------
A gallery is a JSON-like mapping that the page's script reads. Maps stand in it as the cells that the scoring protocol
enlarges, in [0, 1] as bytes (0 … 255), row by row, in base64; ``matrices`` holds, for each side of a map, the protocol's own
weights (size, side) float32 that enlarge it, so the page shows what the protocol scores. A map's ``level`` is the value that
a pixel of the sounding region exceeds, or reaches if ``inclusive``. Maps, levels and scores of a clip are lists by
method of lists by epoch; a method's ``epochs`` says which. ``change`` is how far a method's first map is from its last. Boxes
are ``[x0, y0, x1, y1, sounding, source]``, fractions of the frame.

Which clips are shown is decided by rules that nobody can bend: `pipeline.report.examples`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.common.seeding import evenly_spaced
from pipeline.evaluation.epoch_maps import EarlierMaps, earlier_maps
from pipeline.manifests.boxes import Box, read_split_boxes
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.manifests.prepared import read_prepared_clips
from pipeline.report.examples import ranked_clips, read_epoch_maps
from pipeline.report.page.media import clip_sound, frame_picture, log_mel_picture
from pipeline.report.source import Scored, Source, read_scored
from pipeline.scoring.ground_truth import ground_truth
from pipeline.scoring.protocols import ScoringProtocol, get_protocol
from pipeline.scoring.score import score
from pipeline.scoring.tables import label_of
from pipeline.scoring.upsampling import UpsampledMap, normalize, threshold_of, upsample, upsampling_matrix
from pipeline.shards.reader import ShardSet

SCORED_CLIPS = 48
TRAINING_CLIPS = 24
MOST_EPOCHS = 21


def scored_gallery(source: Source) -> dict[str, Any]:
    """Return up to 48 scored clips, at equal steps through the ranking by the cIoU of `iterative` (or the last variant).

    The maps of the last epoch are those that were scored; those of earlier ones come from the weights that the runs kept.
    """
    methods = [read_scored(source, name) for name in source.variants]
    ranking = methods[list(source.variants).index(source.shown)]
    protocol = get_protocol(source.card.evaluation.protocol)
    boxes = read_split_boxes(source.manifest, source.split)
    clip_ids = ranked_clips(ranking.ciou, SCORED_CLIPS)
    clips = _clips(source, source.scored_shards, source.split, clip_ids)
    own = {clip_id: [box for box in boxes if box.clip_id == clip_id] for clip_id in clip_ids}
    for clip, clip_id in zip(clips, clip_ids, strict=True):
        clip["boxes"] = [
            [*(round(x, 5) for x in (box.x0, box.y0, box.x1, box.y1)), int(box.sounding), box.source]
            for box in own[clip_id]
        ]
        clip |= {name: [] for name in ("maps", "levels", "scores", "change")}
    shapes, described = [], []
    for method in methods:
        earlier = earlier_maps(source.runs / method.name, source.scored_shards, clip_ids, device=source.device)
        _add_method(clips, method, earlier, own, method.maps.rule(protocol))
        shapes.append(method.maps.response.shape[1:])
        described.append(_method(method.name, shapes[-1], earlier.epochs))
    return {
        **_drawing(protocol, shapes),
        "inclusive": protocol.comparator == ">=",
        "methods": described,
        "shown": methods.index(ranking),
        "threshold": source.card.evaluation.threshold,
        "total": len(ranking.ciou),
        "clips": clips,
    }


def training_gallery(source: Source) -> dict[str, Any]:
    """Return up to 24 training clips, at equal steps through the clip list, with R̃ after up to 21 of the epochs.

    Per method and epoch stand the share of cells that sound (Eq. 2), and the IoU of that region with the one shown before.
    """
    shards = source.train_shards
    clip_ids = [shards.clip_ids[place] for place in evenly_spaced(len(shards), TRAINING_CLIPS)]
    maps = read_epoch_maps({name: source.runs / name for name in source.shown_over_epochs}, clip_ids, most=MOST_EPOCHS)
    protocol = get_protocol(source.card.evaluation.protocol)
    clips = _clips(source, shards, TRAIN_SPLIT, clip_ids)
    regions = maps.response > maps.delta_v[:, None, :, None, None].astype(np.float32)
    for place, clip in enumerate(clips):
        each = maps.response[:, place]
        clip["maps"] = [[_bytes(cells) for cells in epochs] for epochs in each]
        clip["change"] = [_change(upsample(epochs[0], protocol), upsample(epochs[-1], protocol)) for epochs in each]
        clip["facts"] = [_region_facts(epochs) for epochs in regions[:, place]]
    shape = maps.response.shape[3:]
    return {
        **_drawing(protocol, [shape]),
        "inclusive": False,
        "methods": [_method(name, shape, maps.epochs) for name in maps.names],
        "shown": 0,
        "levels": maps.delta_v.tolist(),
        "total": len(shards),
        "clips": clips,
    }


def _clips(source: Source, shards: ShardSet, split: str, clip_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return what both galleries show of a clip: frame, label, spectrogram and sound."""
    listed = {clip.clip_id: clip for clip in read_prepared_clips(source.clips, split)}
    seconds, rate = float(shards.settings["clip_seconds"]), int(shards.settings["sample_rate"])
    places = {clip_id: place for place, clip_id in enumerate(shards.clip_ids)}
    clips = []
    for clip_id in clip_ids:
        frames, log_mels = shards.read([places[clip_id]])
        clip = listed.get(clip_id)
        sound, note = clip_sound(clip, source.media_root, clip_seconds=seconds, sample_rate=rate)
        clips.append(
            {
                "id": clip_id,
                "label": clip.label if clip else "",
                "frame": frame_picture(frames[0]),
                "mel": log_mel_picture(log_mels[0]),
                "sound": sound,
                "note": note,
            }
        )
    return clips


def _add_method(
    clips: Sequence[dict[str, Any]],
    method: Scored,
    earlier: EarlierMaps,
    boxes: Mapping[str, Sequence[Box]],
    rule: ScoringProtocol,
) -> None:
    """Append to each clip a method's maps over the epochs, the levels and scores of its sounding regions, and the change."""
    clip_ids = [clip["id"] for clip in clips]
    places = [method.maps.clip_ids.index(clip_id) for clip_id in clip_ids]
    response = np.concatenate([earlier.response, method.maps.response[places][None]])
    drawn_boxes = [box for clip_id in clip_ids for box in boxes[clip_id]]
    scored = [score(maps, clip_ids, drawn_boxes, rule) for maps in earlier.response]
    scores = [*(dict(zip(each.clip_ids, each.ciou, strict=True)) for each in scored), method.ciou]
    for place, clip in enumerate(clips):
        drawn = [_scored_map(raw, boxes[clip["id"]], rule) for raw in response[:, place]]
        clip["maps"].append([_bytes(cells) for cells, _, _ in drawn])
        clip["levels"].append([level for _, level, _ in drawn])
        clip["scores"].append([round(float(each[clip["id"]]), 4) for each in scores])
        clip["change"].append(_change(drawn[0][2], drawn[-1][2]))


def _scored_map(raw: np.ndarray, boxes: Sequence[Box], rule: ScoringProtocol) -> tuple[np.ndarray, float, np.ndarray]:
    """Return a map's cells in [0, 1], the level of its sounding region, and its enlarged values."""
    maps = normalize(raw[None], rule.normalization)
    enlarged = UpsampledMap(maps, 0, rule)
    truth = ground_truth(boxes, rule.size, rounding=rule.rounding, consensus="union")
    level = threshold_of(enlarged, rule, truth[0].n_support if truth else 0)
    return maps.cells[0], round(float(level), 5), enlarged.values


def _drawing(protocol: ScoringProtocol, shapes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return the protocol's grid and the weights that bring maps of these shapes onto it."""
    sides = sorted({side for shape in shapes for side in shape})
    matrices = {
        str(side): upsampling_matrix(
            side, protocol.size, interpolation=protocol.interpolation, align_corners=protocol.align_corners
        )
        for side in sides
    }
    return {"size": protocol.size, "matrices": {side: _base64(weights) for side, weights in matrices.items()}}


def _method(name: str, shape: tuple[int, ...], epochs: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "label": label_of(name), "rows": shape[0], "columns": shape[1], "epochs": list(epochs)}


def _region_facts(regions: np.ndarray) -> list[list[float | None]]:
    """Return for each epoch the share of sounding cells, and their IoU with those of the epoch before (None at first)."""
    facts: list[list[float | None]] = []
    for i, region in enumerate(regions):
        either = (region | regions[i - 1]).sum()
        iou = float((region & regions[i - 1]).sum() / either) if either else 1.0
        facts.append([round(float(region.mean()), 4), round(iou, 4) if i else None])
    return facts


def _change(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean absolute difference of two enlarged maps."""
    return round(float(np.abs(np.clip(before, 0, 1) - np.clip(after, 0, 1)).mean(dtype=np.float64)), 5)


def _bytes(cells: np.ndarray) -> str:
    return _base64(np.rint(255 * np.clip(cells, 0, 1)).astype(np.uint8))


def _base64(values: np.ndarray) -> str:
    """Return an array's bytes, little-endian, row by row."""
    little = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")
