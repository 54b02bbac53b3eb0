"""Checks of the boxes in a published file.

Conventions: boxes are corners ``(x0, y0, x1, y1)``, origin top left. What the numbers of a file mean (corners or sizes,
pixels or fractions) follows from its format and is checked against the valid range; it is never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.errors import ManifestError

_CORRUPT = 1000.0  # a number this many frame sides outside the frame is noise, not a coordinate
_SCHEMA_SHARE, _SCHEMA_COUNT = 0.25, 5  # with this many faulty boxes, the file has another format


@dataclass(frozen=True)
class BoxFault:
    """A skipped box, and everything that is wrong with it."""

    clip_id: str
    box: tuple[str, ...]  # as text, because the values may be infinite, or not numbers at all
    faults: tuple[str, ...]  # from `box_faults`


def box_faults(box: Sequence[Any], *, low: float, high: float) -> list[str]:
    """List everything that is wrong with corners ``(x0, y0, x1, y1)``; empty for a valid box.

    Parameters
    ----------
    box : sequence
        The unchecked content of the file.
    low, high : float
        Smallest and largest coordinate inside the frame, in the file's unit.

    Returns
    -------
    list of str
        ``not four numbers`` alone; or ``corrupt coordinate`` (once for each such coordinate), ``width <= 0``,
        ``height <= 0``, ``outside the frame``.
    """
    if len(box) != 4 or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in box):
        return ["not four numbers"]
    reach = _CORRUPT * (high - low)
    # "not <=" also catches NaN. math.isfinite would raise for an int that is too large for a float.
    faults = ["corrupt coordinate" for v in box if not abs(v) <= reach]
    if box[2] <= box[0]:
        faults.append("width <= 0")
    if box[3] <= box[1]:
        faults.append("height <= 0")
    if not faults and any(not low <= v <= high for v in box):
        faults.append("outside the frame")
    return faults


def refuse_other_schema(faults: Sequence[BoxFault], n_boxes: int, path: Path) -> None:
    """Raise ManifestError if too many boxes are faulty for a file of corners in the expected unit.

    Sizes ``[x, y, width, height]`` that are read as corners give many boxes without width or height. Pixels that are
    read as fractions are outside the frame. A few faulty boxes are normal in official files and only reported.
    """
    if not implies_other_schema(len(faults), n_boxes):
        return
    kinds = Counter(fault for box in faults for fault in box.faults)
    kind = max(sorted(kinds), key=kinds.__getitem__)
    guess = "in another unit" if kind == "outside the frame" else "[x, y, width, height]"
    raise ManifestError(
        f"{path}: {len(faults)} of {n_boxes} boxes are not valid as [x0, y0, x1, y1], most often {kind!r} "
        f"(first: clip {faults[0].clip_id}, [{', '.join(faults[0].box)}]); they look like boxes {guess}; convert them "
        "first"
    )


def implies_other_schema(n_faulty: int, n_boxes: int) -> bool:
    """Return whether so many boxes are faulty that the file must have another format."""
    return n_faulty >= max(_SCHEMA_COUNT, _SCHEMA_SHARE * n_boxes)
