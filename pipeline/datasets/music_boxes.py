"""Boxes of the MUSIC frames as published: ``[x, y, width, height]`` in fractions, and a category number.

Conventions: boxes come in as sizes and leave as corners ``(x0, y0, x1, y1)``, fractions of the full frame, origin top
left. The two are never guessed: a row that cannot be a size is refused (public code has read these rows as corners,
which makes half of them degenerate).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.common import read_json
from pipeline.errors import ManifestError

# Category numbers of the published boxes (MUSIC-Synthetic and the MUSIC solo frames share them).
INSTRUMENT_OF_CATEGORY: Mapping[int, str] = {
    1: "cello",
    3: "acoustic_guitar",
    8: "saxophone",
    10: "trumpet",
    11: "violin",
    12: "flute",
    13: "accordion",
}
BOX_FRAME_RATE = 30.0  # frames a second in the numbering of the published frames: 7, 14, 21 within each 30
_FRAME_KEY = re.compile(r"(?P<video>.+)_(?P<start>\d+)_(?P<end>\d+)/frame_(?P<second>\d+)/(?P<number>\d+)\.\w+")
_OVERSHOOT = 1.0e-6  # a published box may leave the frame by rounding

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxedFrame:
    """One frame that was annotated: its time in the video and its boxes."""

    time_s: float
    boxes: tuple[Corners, ...]


def corners_of_xywh(row: Sequence[float], where: str) -> Corners:
    """Turn ``[x, y, width, height]`` fractions into corners, clipped to the frame after a check of their range.

    Raises
    ------
    ManifestError
        Not four finite numbers, an empty box, or one that leaves the frame; corners taken for sizes do the latter.
    """
    try:
        x, y, width, height = (float(value) for value in row)
    except (TypeError, ValueError):
        raise ManifestError(f"{where}: box {row!r}: expected [x, y, width, height]") from None
    shown = [round(value, 4) for value in (x, y, width, height)]
    if not np.isfinite([x, y, width, height]).all():
        raise ManifestError(f"{where}: box {shown}: not finite")
    if width <= 0 or height <= 0:
        raise ManifestError(f"{where}: box {shown}: no area; expected [x, y, width, height] in fractions")
    if min(x, y) < -_OVERSHOOT or max(x + width, y + height) > 1 + _OVERSHOOT:
        hint = "; looks like corners xyxy" if max(x, y, width, height) <= 1 and width > x and height > y else ""
        raise ManifestError(f"{where}: box {shown} leaves the frame; expected [x, y, width, height] in fractions{hint}")
    return max(x, 0.0), max(y, 0.0), min(x + width, 1.0), min(y + height, 1.0)


def read_solo_boxes(
    path: Path, instruments: Mapping[str, str], *, frame_rate: float = BOX_FRAME_RATE
) -> dict[str, dict[int, BoxedFrame]]:
    """Read the boxes of solo frames, and keep one boxed frame for each second.

    A key ``ID_0_1000/frame_013/00411.jpg`` is frame 411 of seconds 0–1000 of the video ID, in its second 13. The frames
    are numbered at 30 a second in all published videos, so that frame's time is (411 + ½)/30 s: the half keeps rounding
    from falling on the frame before. Of a second's frames with a box the one nearest the second's middle is kept.

    Parameters
    ----------
    path : Path
        JSON ``{KEY: {"bbox": [{"normbox": [x, y, w, h], "category_id": int}, ...], ...}}``.
    instruments : mapping of str to str
        Instrument of each video id; videos that are not in it are left out.
    frame_rate : float
        Frames a second in the numbering of the keys.

    Returns
    -------
    dict of video id to dict of second to BoxedFrame
        Annotated videos; a second none of whose frames has a box is absent.

    Raises
    ------
    ManifestError
        A malformed key, box or category; or a category that is not the video's instrument.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: expected a mapping of frame names to boxes")
    boxed: dict[str, dict[int, BoxedFrame]] = {}
    for key, value in content.items():
        video, second, time_s = _parse_key(key, str(path), frame_rate)
        if video not in instruments:
            continue
        frames = boxed.setdefault(video, {})
        boxes = tuple(_parse_boxes(value, instruments[video], f"{path}: {key}"))
        middle = second + 0.5
        if boxes and (second not in frames or abs(time_s - middle) < abs(frames[second].time_s - middle)):
            frames[second] = BoxedFrame(time_s, boxes)
    return boxed


def _parse_key(key: str, where: str, frame_rate: float) -> tuple[str, int, float]:
    match = _FRAME_KEY.fullmatch(key)
    if not match:
        raise ManifestError(f"{where}: {key!r}: expected a key like ID_0_1000/frame_013/00411.jpg")
    number, second, start = int(match["number"]), int(match["second"]), int(match["start"])
    time_s = (number + 0.5) / frame_rate
    if int(time_s) != second:
        raise ManifestError(
            f"{where}: {key!r}: at {frame_rate:g} frames a second frame {number} lies in second {int(time_s)}; "
            "give the frame rate that the frames are numbered at"
        )
    return match["video"], start + second, start + time_s


def _parse_boxes(value: Any, instrument: str, where: str) -> Iterator[Corners]:
    rows = value.get("bbox") if isinstance(value, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ManifestError(f"{where}: expected {{'bbox': [{{'normbox': [x, y, w, h], 'category_id': ...}}]}}")
    for row in rows:
        named = instrument_of_category(row.get("category_id"), where)
        if named != instrument:
            raise ManifestError(f"{where}: the box is of {named!r}, the video of {instrument!r}")
        yield corners_of_xywh(row.get("normbox", ()), where)


def instrument_of_category(category: Any, where: str) -> str:
    """Return the instrument of a published category number; ManifestError for an unknown one."""
    if isinstance(category, bool) or category not in INSTRUMENT_OF_CATEGORY:
        known = ", ".join(f"{number} {name}" for number, name in INSTRUMENT_OF_CATEGORY.items())
        raise ManifestError(f"{where}: category {category!r} is unknown; there are {known}")
    return INSTRUMENT_OF_CATEGORY[int(category)]
