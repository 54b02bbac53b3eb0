"""What a split needs to be scored. The stages `prepare`, `baselines` and `evaluate` and `soundspot check` all ask here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.common.config import EvaluationSettings
from pipeline.common.errors import EvaluationError
from pipeline.manifests.boxes import Box, read_split_boxes
from pipeline.scoring.ground_truth import box_edges
from pipeline.scoring.protocols import ScoringProtocol, get_protocol


def validate_for_evaluation(
    manifest: Path, split: str, clip_ids: Sequence[str], evaluation: EvaluationSettings
) -> list[Box]:
    """Check everything that the scores of a split require of its dataset, and return the boxes.

    Parameters
    ----------
    manifest : Path
        Folder with ``<split>_boxes.csv``.
    split : str
    clip_ids : sequence of str
        The clips to be scored: those of the shards or, before they exist, those whose media exist.
    evaluation : EvaluationSettings

    Raises
    ------
    EvaluationError
        The protocol is unknown, or there is no box file, a single clip, or no clip with a sounding box on the grid.
    ManifestError
        The box file is malformed.
    """
    protocol = get_protocol(evaluation.protocol)
    boxes = read_split_boxes(manifest, split)
    try:
        check_shuffling(len(clip_ids))
        check_scorable(clip_ids, boxes, protocol)
    except EvaluationError as error:
        raise EvaluationError(f"{manifest}: split {split!r}: {error}") from None
    return boxes


def check_shuffling(n_clips: int) -> None:
    """Raise EvaluationError if there are too few clips for the score with the audio of another clip."""
    if n_clips < 2:
        raise EvaluationError(
            f"add clips to the scored split: shuffled audio requires at least 2 clips, it has {n_clips}"
        )


def check_scorable(clip_ids: Sequence[str], boxes: Iterable[Box], protocol: ScoringProtocol) -> None:
    """Raise EvaluationError if no clip has a sounding box with a pixel on the protocol's grid."""
    sounding = group_sounding_boxes(boxes)
    of_clips = [sounding.get(clip_id, []) for clip_id in clip_ids]
    edges = box_edges([box for own in of_clips for box in own], protocol.size, rounding=protocol.rounding)
    if any(x0 < x1 and y0 < y1 for x0, y0, x1, y1 in edges):
        return
    n_silent = sum(not own for own in of_clips)
    raise EvaluationError(
        f"protocol {protocol.name}: no clip is left to score: {n_silent} clips have no sounding box, "
        f"{len(of_clips) - n_silent} have boxes outside the frame, {len(sounding.keys() - set(clip_ids))} clips with sounding "
        "boxes are not among the clips to score; check that clips and boxes belong together, and the column `sounding`"
    )


def group_sounding_boxes(boxes: Iterable[Box]) -> dict[str, list[Box]]:
    """Return the sounding boxes of each clip that has any."""
    grouped: dict[str, list[Box]] = {}
    for box in boxes:
        if box.sounding:
            grouped.setdefault(box.clip_id, []).append(box)
    return grouped
