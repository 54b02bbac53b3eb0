"""Boxes of the sounding and silent objects in a split: read, validate, write.

The file ``SPLIT_boxes.csv`` has the columns ``clip_id, source, annotator, sounding, x0, y0, x1, y1``, in any order:
corners as fractions of the full frame in [0, 1], origin at the top left, and `sounding` 0 or 1. Boxes given as corner
and size (xywh) are rejected rather than converted, because the two forms cannot always be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline.common.errors import EvaluationError, ManifestError
from pipeline.common.files import listed, write_csv
from pipeline.manifests.clips import TEST_SPLIT, check_clip_id, parse_number
from pipeline.manifests.rows import read_rows

BOXES_SUFFIX = "_boxes.csv"


@dataclass(frozen=True)
class Box:
    """One annotated object in one clip's frame: corners as fractions of the full frame, origin at the top left."""

    clip_id: str
    source: str
    annotator: str
    sounding: bool
    x0: float
    y0: float
    x1: float
    y1: float


BOX_COLUMNS = tuple(field.name for field in fields(Box))


def read_boxes(path: Path | str, *, rename: Callable[[str, str], str] = lambda clip_id, where: clip_id) -> list[Box]:
    """Read a box file, which may contain no boxes.

    Parameters
    ----------
    path : Path or str
    rename : callable
        Receives the clip of a row as the file names it, and ``FILE:LINE``; returns its clip id.

    Raises
    ------
    ManifestError
        The file is missing or malformed, or a box is not finite, exceeds the frame, or has no area.
    """
    rows = read_rows(Path(path), BOX_COLUMNS)
    return [_parse_box({**row, "clip_id": rename(row["clip_id"], where)}, where) for where, row in rows]


def write_boxes(path: Path, boxes: Sequence[Box]) -> None:
    """Write boxes so that `read_boxes` returns them unchanged. Raises ManifestError for a box that it would reject."""
    for box in boxes:
        _check_box(box, f"{path}: clip {box.clip_id!r}")
    write_csv(path, BOX_COLUMNS, [list((asdict(box) | {"sounding": int(box.sounding)}).values()) for box in boxes])


def boxes_path(manifest: Path, split: str) -> Path:
    """Path of the boxes of a split."""
    return manifest / f"{split}{BOXES_SUFFIX}"


def other_splits(manifest: Path, split: str) -> list[str]:
    """Return the names of the other splits that have boxes, sorted."""
    splits = (path.name.removesuffix(BOXES_SUFFIX) for path in listed(manifest) if path.name.endswith(BOXES_SUFFIX))
    return sorted(name for name in splits if name != split)


def read_split_boxes(manifest: Path, split: str) -> list[Box]:
    """Read the boxes of the scored split. Raises EvaluationError if it has no box file, ManifestError if that is malformed."""
    path = boxes_path(manifest, split)
    if not path.is_file():
        available = ", ".join(other_splits(manifest, split)) or "none"
        raise EvaluationError(
            f"{path}: no boxes for the split {split!r}, so it cannot be scored; set score_split to a split with boxes "
            f"({available}), or add the file"
        )
    return read_boxes(path)


def read_prior_boxes(manifest: Path, split: str) -> list[Box]:
    """Read the boxes that a location prior may use: those of clips in neither the scored split nor the test split."""
    paths = {name: boxes_path(manifest, name) for name in dict.fromkeys((split, TEST_SPLIT))}
    # Splits other than train may overlap, so it is not enough to skip the files of the two splits.
    held_out = {box.clip_id for path in paths.values() if path.is_file() for box in read_boxes(path)}
    splits = [other for other in other_splits(manifest, split) if other != TEST_SPLIT]
    boxes = [box for other in splits for box in read_boxes(boxes_path(manifest, other))]
    return [box for box in boxes if box.clip_id not in held_out]


def _parse_box(row: dict[str, str], where: str) -> Box:
    if row["sounding"] not in ("0", "1"):
        raise ManifestError(f"{where}: sounding is {row['sounding']!r}; use 0 or 1")
    x0, y0, x1, y1 = (parse_number(row[name], name, where) for name in ("x0", "y0", "x1", "y1"))
    box = Box(row["clip_id"], row["source"], row["annotator"], row["sounding"] == "1", x0, y0, x1, y1)
    _check_box(box, where)
    return box


def _check_box(box: Box, where: str) -> None:
    check_clip_id(box.clip_id, where)
    corners = (box.x0, box.y0, box.x1, box.y1)
    if not all(map(math.isfinite, corners)):
        raise ManifestError(f"{where}: box {corners} is not finite")
    if not all(0 <= value <= 1 for value in corners):
        raise ManifestError(f"{where}: box {corners} exceeds the frame; use corners as fractions of it, 0 to 1")
    if box.x1 <= box.x0 or box.y1 <= box.y0:
        # If this were xywh, corner plus size would have to stay inside the frame.
        hint = "its corners are swapped, or it has no area"
        if box.x0 + box.x1 <= 1 and box.y0 + box.y1 <= 1:
            hint = "this looks like xywh; use the corners x0, y0, x1, y1"
        raise ManifestError(f"{where}: box {corners} does not satisfy x0 < x1 and y0 < y1: {hint}")
