"""The two galleries of the page, both over the epochs: scored clips with maps, training clips with pseudo-labels.

Conventions
-----------
A gallery is a JSON-like mapping for the page's script. Maps are stored before upsampling, in [0, 1] as bytes (0 … 255), row
by row, in base64. ``matrices`` holds for each side of a map the protocol's own upsampling weights, float32 (size, side), so the
page shows exactly what is scored. A map's ``level`` is the value that pixels of the sounding region exceed, or reach if
``inclusive``. Maps, levels and scores of a clip are nested lists: by method, then by epoch; a method's ``epochs`` lists which.
``change`` is the difference between a method's first and last map. Boxes are ``[x0, y0, x1, y1, sounding, source]``, fractions
of the frame.

The choice of clips is deterministic (`pipeline.report.examples`), so examples cannot be cherry-picked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.common.seeding import evenly_spaced
from pipeline.manifests.boxes import Box, read_split_boxes
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.manifests.prepared import read_prepared_clips
from pipeline.report.examples import EpochMaps, ranked_clips, read_epoch_maps
from pipeline.report.page.encoding import map_base64, map_change, method_entry, upsampling_weights
from pipeline.report.page.media import clip_audio, frame_image, log_mel_image
from pipeline.report.page.scored_maps import encode_clips, localize_epochs, score_epochs
from pipeline.report.source import Source, read_scored
from pipeline.scoring.protocols import ScoringProtocol, get_protocol
from pipeline.scoring.upsampling import upsample
from pipeline.shards.reader import ShardSet

SCORED_CLIPS = 48
TRAINING_CLIPS = 24
MOST_EPOCHS = 21


def scored_gallery(source: Source) -> dict[str, Any]:
    """Return up to 48 scored clips, evenly spaced in the ranking by the cIoU of `iterative` (or the last variant).

    Maps of the last epoch are the ones that were scored; earlier maps come from the checkpoints that the runs kept.
    """
    methods = [read_scored(source, name) for name in source.ordered]
    clip_ids = ranked_clips(methods[0].ciou, SCORED_CLIPS)
    boxes = _boxes_by_clip(source, clip_ids)
    protocol = get_protocol(source.card.evaluation.protocol)
    entries, encoded = [], []
    for method in methods:
        rule = method.maps.rule(protocol)
        maps = localize_epochs(source, method, clip_ids)
        ciou = score_epochs(maps, method, clip_ids, boxes, rule)
        encoded.append(encode_clips(maps, ciou, clip_ids, boxes, rule))
        entries.append(method_entry(method.name, maps.response.shape[2:], maps.epochs))
    clips = _clips(source, source.scored_shards, source.split, clip_ids)
    for place, clip in enumerate(clips):
        clip["boxes"] = [_box_entry(box) for box in boxes[clip["id"]]]
        clip |= {key: [each[place][key] for each in encoded] for key in ("maps", "levels", "scores", "change")}
    return {
        **upsampling_weights(protocol, [method.maps.response.shape[1:] for method in methods]),
        "inclusive": protocol.comparator == ">=",
        "methods": entries,
        "shown": 0,
        "threshold": source.card.evaluation.threshold,
        "total": len(methods[0].ciou),
        "clips": clips,
    }


def training_gallery(source: Source) -> dict[str, Any]:
    """Return up to 24 training clips, evenly spaced in the clip list, with R̃ after up to 21 of the epochs.

    ``facts`` has, by method and epoch, the fraction of sounding cells (Eq. 2) and their IoU with those of the previous map.
    """
    shards = source.train_shards
    clip_ids = [shards.clip_ids[place] for place in evenly_spaced(len(shards), TRAINING_CLIPS)]
    maps = read_epoch_maps({name: source.runs / name for name in source.shown_over_epochs}, clip_ids, most=MOST_EPOCHS)
    clips = _clips(source, shards, TRAIN_SPLIT, clip_ids)
    return label_gallery(maps, clips, get_protocol(source.card.evaluation.protocol)) | {"total": len(shards)}


def label_gallery(maps: EpochMaps, clips: Sequence[dict[str, Any]], protocol: ScoringProtocol) -> dict[str, Any]:
    """Return a gallery of pseudo-labels; `clips` get their maps, and hold what else is shown of them."""
    # In float32, as training compares them.
    regions = maps.response > maps.delta_v[:, None, :, None, None].astype(np.float32)
    for place, clip in enumerate(clips):
        each = maps.response[:, place]
        clip["maps"] = [[map_base64(cells) for cells in epochs] for epochs in each]
        clip["change"] = [map_change(upsample(epochs[0], protocol), upsample(epochs[-1], protocol)) for epochs in each]
        clip["facts"] = [_region_facts(epochs) for epochs in regions[:, place]]
    shape = maps.response.shape[3:]
    return {
        **upsampling_weights(protocol, [shape]),
        "inclusive": False,
        "methods": [method_entry(name, shape, maps.epochs) for name in maps.names],
        "shown": 0,
        "levels": maps.delta_v.tolist(),
        "clips": clips,
    }


def _boxes_by_clip(source: Source, clip_ids: Sequence[str]) -> Mapping[str, list[Box]]:
    boxes: dict[str, list[Box]] = {clip_id: [] for clip_id in clip_ids}
    for box in read_split_boxes(source.manifest, source.split):
        if box.clip_id in boxes:
            boxes[box.clip_id].append(box)
    return boxes


def _box_entry(box: Box) -> list[Any]:
    return [*(round(x, 5) for x in (box.x0, box.y0, box.x1, box.y1)), int(box.sounding), box.source]


def _clips(source: Source, shards: ShardSet, split: str, clip_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return what both galleries show of a clip: frame, label, spectrogram and audio."""
    # Shards keep frames and spectrograms; labels and media paths are in the clip list, which may have changed since.
    listed = {clip.clip_id: clip for clip in read_prepared_clips(source.clips, split)}
    seconds, rate = float(shards.settings["clip_seconds"]), int(shards.settings["sample_rate"])
    places = {clip_id: place for place, clip_id in enumerate(shards.clip_ids)}
    clips = []
    for clip_id in clip_ids:
        frames, log_mels = shards.read([places[clip_id]])
        clip = listed.get(clip_id)
        audio, note = clip_audio(clip, source.media_root, clip_seconds=seconds, sample_rate=rate)
        clips.append(
            {
                "id": clip_id,
                "label": clip.label if clip else "",
                "frame": frame_image(frames[0]),
                "mel": log_mel_image(log_mels[0]),
                "audio": audio,
                "note": note,
            }
        )
    return clips


def _region_facts(regions: np.ndarray) -> list[list[float | None]]:
    """Return for each epoch the fraction of sounding cells, and their IoU with those of the epoch before (None at first)."""
    facts: list[list[float | None]] = []
    for i, region in enumerate(regions):
        # For the first epoch this wraps around to the last; that IoU is dropped below.
        either = (region | regions[i - 1]).sum()
        iou = float((region & regions[i - 1]).sum() / either) if either else 1.0
        facts.append([round(float(region.mean()), 4), round(iou, 4) if i else None])
    return facts
