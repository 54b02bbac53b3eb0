"""Reads the published boxes of the MUSIC frames: ``[x, y, width, height]`` in fractions, and a category number.

Conventions: the files hold sizes; all functions return corners ``(x0, y0, x1, y1)`` in fractions of the full frame,
origin top left. The format is never guessed. A few boxes outside the frame are reported and skipped; many of them abort
the import. (Public code has read these rows as corners, which makes half of them degenerate.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.errors import ManifestError
from pipeline.common.reading import read_json
from pipeline.datasets.importers.box_checks import BoxFault, box_faults, implies_other_schema
from pipeline.datasets.importers.report import ImportReport

# Category numbers of the published boxes, the same in MUSIC-Synthetic and in the MUSIC solo frames.
INSTRUMENT_OF_CATEGORY: Mapping[int, str] = {
    1: "cello",
    3: "acoustic_guitar",
    8: "saxophone",
    10: "trumpet",
    11: "violin",
    12: "flute",
    13: "accordion",
}
BOX_FRAME_RATE = 30.0  # frame rate behind the published frame numbers: 7, 14 and 21 of every 30 are annotated
_FRAME_KEY = re.compile(r"(?P<video>.+)_(?P<start>\d+)_(?P<end>\d+)/frame_(?P<second>\d+)/(?P<number>\d+)\.\w+")
_OVERSHOOT = 1.0e-6  # rounding puts some published boxes this far outside the frame


Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxedFrame:
    """One annotated frame: its timestamp in the video and its boxes."""

    time_s: float
    boxes: tuple[Corners, ...]


def corners_of_xywh(
    rows: Sequence[tuple[str, Sequence[Any]]], report: ImportReport, where: str
) -> list[Corners | None]:
    """Convert rows ``[x, y, width, height]`` in fractions to corners.

    Parameters
    ----------
    rows : sequence of (str, row)
        The clip or frame that a row belongs to, and the unchecked row of the file.
    report : ImportReport
        Receives the faulty boxes and the counts.
    where : str
        The file or folder, for messages.

    Returns
    -------
    list of Corners or None
        In the order of `rows`. None for a skipped box: not four finite numbers, no area, or outside the frame by more
        than rounding.

    Raises
    ------
    ManifestError
        A quarter of the boxes or more are faulty, so the rows hold something else, most likely corners.
    """
    corners, faulty = [], []
    for clip_id, row in rows:
        box, faults = _corners(row)
        if faults:
            faulty.append(BoxFault(clip_id, tuple(map(str, row)), tuple(faults)))
        corners.append(None if faults else box)
    if implies_other_schema(len(faulty), len(rows)):
        raise ManifestError(
            f"{where}: {len(faulty)} of {len(rows)} boxes are not valid as [x, y, width, height] in fractions (first: "
            f"{faulty[0].clip_id}, [{', '.join(faulty[0].box)}]: {faulty[0].faults[0]}); they look like corners "
            "[x0, y0, x1, y1] or pixels; convert them first"
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
    """Clip a coordinate to the frame if it is outside by no more than rounding."""
    nearest = min(max(value, 0.0), 1.0)
    return nearest if abs(value - nearest) <= _OVERSHOOT else value


def instrument_of_category(category: Any, where: str) -> str:
    """Return the instrument of a published category number. Raises ManifestError for an unknown number."""
    if isinstance(category, bool) or category not in INSTRUMENT_OF_CATEGORY:  # True equals 1, the cello
        known = ", ".join(f"{number} {name}" for number, name in INSTRUMENT_OF_CATEGORY.items())
        raise ManifestError(f"{where}: unknown category {category!r}; known: {known}")
    return INSTRUMENT_OF_CATEGORY[int(category)]


def read_solo_boxes(
    path: Path, instruments: Mapping[str, str], report: ImportReport, *, frame_rate: float = BOX_FRAME_RATE
) -> dict[str, dict[int, BoxedFrame]]:
    """Read the boxes of solo frames, and keep one annotated frame per second.

    The key ``ID_0_1000/frame_013/00411.jpg`` is frame 411 of seconds 0–1000 of the video ID, within second 13. All
    published videos are numbered at 30 frames per second, so its timestamp is (411 + ½)/30 s. The half puts the
    timestamp in the middle of the frame, so that rounding cannot select the frame before. If a second has several
    annotated frames, the one nearest to the middle of the second is kept.

    Parameters
    ----------
    path : Path
        JSON ``{KEY: {"bbox": [{"normbox": [x, y, w, h], "category_id": int}, ...], ...}}``.
    instruments : mapping of str to str
        Instrument of each video id; other videos are ignored.
    report : ImportReport
        Receives the faulty boxes and the counts.
    frame_rate : float
        Frame rate behind the frame numbers in the keys.

    Returns
    -------
    dict of video id to dict of second to BoxedFrame
        Annotated videos. Seconds without a box are absent.

    Raises
    ------
    ManifestError
        A malformed key or entry, an unknown category, a category that is not the video's instrument, or boxes that are
        not sizes.
    """
    content = read_json(path, ManifestError)
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: expected a JSON object that maps frame names to boxes")
    # All keys are parsed, even those of other videos: a malformed key means that the file has another format.
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
    """Return the video id, and the frame's second and timestamp within the video."""
    match = _FRAME_KEY.fullmatch(key)
    if not match:
        raise ManifestError(f"{where}: {key!r}: expected a key like ID_0_1000/frame_013/00411.jpg")
    number, second, start = int(match["number"]), int(match["second"]), int(match["start"])
    time_s = (number + 0.5) / frame_rate
    if int(time_s) != second:
        raise ManifestError(
            f"{where}: {key!r}: at {frame_rate:g} frames per second, frame {number} is in second {int(time_s)}; set "
            "--box-frame-rate to the frame rate of the numbering"
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
            raise ManifestError(f"{where}: the box is labeled {named!r}, but the video is of {instrument!r}")
    return [entry["normbox"] for entry in entries]
