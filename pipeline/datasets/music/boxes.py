"""Boxes of the MUSIC frames as published: ``[x, y, width, height]`` in fractions, and a category number.

Conventions: boxes come in as sizes and leave as corners ``(x0, y0, x1, y1)``, fractions of the full frame, origin top
left. The two are never guessed: single rows that leave the frame are reported and left out, many of them stop the import
(public code has read these rows as corners, which makes half of them degenerate).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.lists import BoxFault, box_faults, read_json
from pipeline.datasets.importers.report import ImportReport

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
_SCHEMA_SHARE, _SCHEMA_COUNT = 0.25, 5  # from so many faulty boxes on, the file does not hold sizes

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxedFrame:
    """One frame that was annotated: its time in the video and its boxes."""

    time_s: float
    boxes: tuple[Corners, ...]


def corners_of_xywh(
    rows: Sequence[tuple[str, Sequence[Any]]], report: ImportReport, where: str
) -> list[Corners | None]:
    """Turn rows ``[x, y, width, height]`` in fractions into corners.

    Parameters
    ----------
    rows : sequence of (str, row)
        The clip or frame that a row belongs to, and the row as it stands in the file.
    report : ImportReport
        Gets the faulty boxes and the counts.
    where : str
        The file or folder, for messages.

    Returns
    -------
    list of Corners or None
        In the order of `rows`; None for a box that is left out: not four finite numbers, without area, or outside the
        frame by more than rounding.

    Raises
    ------
    ManifestError
        A quarter of the boxes or more are faulty: the rows are something else, most likely corners.
    """
    corners, faulty = [], []
    for clip_id, row in rows:
        box, faults = _corners(row)
        if faults:
            faulty.append(BoxFault(clip_id, tuple(map(str, row)), tuple(faults)))
        corners.append(None if faults else box)
    if len(faulty) >= max(_SCHEMA_COUNT, _SCHEMA_SHARE * len(rows)):
        raise ManifestError(
            f"{where}: {len(faulty)} of {len(rows)} boxes are unusable as [x, y, width, height] in fractions (first: "
            f"{faulty[0].clip_id}, [{', '.join(faulty[0].box)}]: {faulty[0].faults[0]}); they look like corners "
            "[x0, y0, x1, y1], or pixels; convert them first"
        )
    report.n_boxes += len(rows)
    report.box_faults += faulty
    return corners


def _corners(row: Sequence[Any]) -> tuple[Corners, list[str]]:
    try:
        x, y, width, height = (float(value) for value in row)
    except (TypeError, ValueError):
        return (0.0, 0.0, 0.0, 0.0), ["not four numbers"]
    x0, y0, x1, y1 = (_snapped(value) for value in (x, y, x + width, y + height))
    return (x0, y0, x1, y1), box_faults((x0, y0, x1, y1), low=0.0, high=1.0)


def _snapped(value: float) -> float:
    """Put a coordinate that lies outside the frame by rounding onto its edge."""
    nearest = min(max(value, 0.0), 1.0)
    return nearest if abs(value - nearest) <= _OVERSHOOT else value


def instrument_of_category(category: Any, where: str) -> str:
    """Return the instrument of a published category number; ManifestError for an unknown one."""
    if isinstance(category, bool) or category not in INSTRUMENT_OF_CATEGORY:
        known = ", ".join(f"{number} {name}" for number, name in INSTRUMENT_OF_CATEGORY.items())
        raise ManifestError(f"{where}: category {category!r} is unknown; there are {known}")
    return INSTRUMENT_OF_CATEGORY[int(category)]


def read_solo_boxes(
    path: Path, instruments: Mapping[str, str], report: ImportReport, *, frame_rate: float = BOX_FRAME_RATE
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
    report : ImportReport
        Gets the faulty boxes and the counts.
    frame_rate : float
        Frames a second in the numbering of the keys.

    Returns
    -------
    dict of video id to dict of second to BoxedFrame
        Annotated videos; a second none of whose frames has a box is absent.

    Raises
    ------
    ManifestError
        A malformed key or entry, an unknown category, one that is not the video's instrument, or boxes that are no sizes.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: expected a mapping of frame names to boxes")
    places = {key: _parse_key(key, str(path), frame_rate) for key in content}
    rows = [
        (key, row)
        for key, value in content.items()
        if places[key][0] in instruments
        for row in _rows(value, instruments[places[key][0]], f"{path}: {key}")
    ]
    boxes: dict[str, list[Corners]] = {}
    for (key, _), corners in zip(rows, corners_of_xywh(rows, report, str(path)), strict=True):
        if corners:
            boxes.setdefault(key, []).append(corners)
    boxed: dict[str, dict[int, BoxedFrame]] = {place[0]: {} for place in places.values() if place[0] in instruments}
    for key, found in boxes.items():
        video, second, time_s = places[key]
        kept = boxed[video].get(second)
        if kept is None or abs(time_s - second - 0.5) < abs(kept.time_s - second - 0.5):
            boxed[video][second] = BoxedFrame(time_s, tuple(found))
    return boxed


def _parse_key(key: str, where: str, frame_rate: float) -> tuple[str, int, float]:
    """Return the video, the second of it, and the frame's time in it."""
    match = _FRAME_KEY.fullmatch(key)
    if not match:
        raise ManifestError(f"{where}: {key!r}: expected a key like ID_0_1000/frame_013/00411.jpg")
    number, second, start = int(match["number"]), int(match["second"]), int(match["start"])
    time_s = (number + 0.5) / frame_rate
    if int(time_s) != second:
        raise ManifestError(
            f"{where}: {key!r}: at {frame_rate:g} frames a second frame {number} lies in second {int(time_s)}; "
            "give the rate that the frames are numbered at with --box-frame-rate"
        )
    return match["video"], start + second, start + time_s


def _rows(value: Any, instrument: str, where: str) -> list[Sequence[Any]]:
    entries = value.get("bbox") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("normbox"), list) for e in entries
    ):
        raise ManifestError(f"{where}: expected {{'bbox': [{{'normbox': [x, y, w, h], 'category_id': ...}}]}}")
    for entry in entries:
        named = instrument_of_category(entry.get("category_id"), where)
        if named != instrument:
            raise ManifestError(f"{where}: the box is of {named!r}, the video of {instrument!r}")
    return [entry["normbox"] for entry in entries]
