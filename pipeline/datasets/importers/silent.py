"""Silent clips: the frame of one clip with the sound of another, so that what is heard is not in the picture.

SLAVC scores with them whether a model knows when nothing in sight sounds. A list is CSV, ``video, audio`` and, if it likes,
``label``: the id that gives the frame, the id that gives the sound, and ``non-sounding``; a header row may stand above. Rows
whose two ids are the same, of which published lists have hundreds, are no silent clips.

They go to a split of their own, ``test_silent``: the test clips, their boxes, and the silent clips, which have none. The
split ``test`` stays as it is, so that whatever else is computed of its clips is not computed of mixed ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.layouts import MediaFinder
from pipeline.datasets.importers.lists import bare_id, checked_id, read_rows
from pipeline.datasets.importers.report import ImportReport
from pipeline.manifests.clips import Clip

SILENT_SPLIT = "test_silent"
_LABEL = "non-sounding"

Pairs = dict[str, tuple[str, str]]  # clip id → the ids that give the frame and the sound


def read_silent_pairs(path: Path | None, report: ImportReport, *, pattern: re.Pattern[str]) -> Pairs:
    """Read a list of silent clips; no list has none.

    Parameters
    ----------
    path : Path, optional
    report : ImportReport
        Gets the number of rows, and those that are no silent clips.
    pattern : re.Pattern
        What an id of the dataset looks like.

    Raises
    ------
    ManifestError
        A row has not two or three cells, or a malformed id; file and line are named. Or no row is left.
    """
    rows = read_rows(path) if path else []
    if rows and [cell.lower() for cell in rows[0][1][:2]] == ["video", "audio"]:
        rows = rows[1:]
    pairs: Pairs = {}
    for line, cells in rows:
        where = f"{path}:{line}"
        if len(cells) not in (2, 3):
            raise ManifestError(f"{where}: {len(cells)} columns; expected video, audio and perhaps label")
        frame, sound = (checked_id(bare_id(cell), where, pattern=pattern) for cell in cells[:2])
        clip_id = f"silent-{frame}-{sound}"
        if frame == sound:
            report.leave_out(SILENT_SPLIT, clip_id, "frame and sound are of one clip")
        elif cells[2:] not in ([], [_LABEL]):
            report.leave_out(SILENT_SPLIT, clip_id, f"labeled {cells[2]!r}")
        else:
            pairs[clip_id] = (frame, sound)
    if path:
        report.listed[SILENT_SPLIT] = len(rows)
        if not pairs:
            raise ManifestError(f"{path}: holds no silent clips")
    return pairs


def ids_of_pairs(pairs: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the ids whose frame or sound a silent clip shows; to train on one is a leak."""
    return list(dict.fromkeys(clip_id for pair in pairs.values() for clip_id in pair))


def find_silent_clips(
    finder: MediaFinder,
    pairs: Mapping[str, tuple[str, str]],
    report: ImportReport,
    *,
    centre_s: float | None = None,
) -> list[Clip]:
    """Look up the files of silent clips, in the order of the list; what is not there goes to the report."""
    clips = []
    for clip_id, pair in pairs.items():
        frame, sound = (finder.find(part) for part in pair)
        if isinstance(frame, str) or isinstance(sound, str):
            report.leave_out(SILENT_SPLIT, clip_id, next(part for part in (frame, sound) if isinstance(part, str)))
        else:
            # Either may be a video, of which the picture or the sound is then taken.
            files = {"frame": frame.frame or frame.video, "audio": sound.audio or sound.video}
            clips.append(Clip(clip_id, centre_s=centre_s, **files))
    return clips
