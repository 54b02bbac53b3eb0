"""Silent clips: the frame of one clip with the audio of another, so that the sound source is not visible.

SLAVC uses them to score whether a model detects that no visible object sounds. A list is CSV with the columns ``video,
audio`` and optionally ``label``: the id of the frame, the id of the audio, and ``non-sounding``. A header is optional.
Rows with two equal ids (published lists have hundreds) are not silent clips and are reported.

Silent clips are written to a separate split, ``test_silent``, together with the test clips and their boxes. The split
``test`` contains no silent clips, so that all other metrics are unaffected by them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.tables import read_table
from pipeline.datasets.importers.layouts import MediaFinder
from pipeline.datasets.importers.lists import bare_id, checked_id
from pipeline.datasets.importers.report import ImportReport
from pipeline.manifests.clips import Clip

SILENT_SPLIT = "test_silent"
_LABEL = "non-sounding"

Pairs = dict[str, tuple[str, str]]  # clip id → id of the frame, id of the audio


def read_silent_pairs(path: Path | None, report: ImportReport, *, pattern: re.Pattern[str]) -> Pairs:
    """Read a list of silent clips. Without a path, there are none.

    Parameters
    ----------
    path : Path, optional
    report : ImportReport
        Receives the number of rows, and the rows that are not silent clips.
    pattern : re.Pattern
        Must match every id.

    Raises
    ------
    ManifestError
        A row does not have two or three cells or has a malformed id (file and line are named), or there are no silent
        clips.
    """
    rows = read_table(path) if path else []
    if rows and [cell.lower() for cell in rows[0][1][:2]] == ["video", "audio"]:
        rows = rows[1:]
    pairs: Pairs = {}
    for line, cells in rows:
        where = f"{path}:{line}"
        if len(cells) not in (2, 3):
            raise ManifestError(f"{where}: {len(cells)} columns; expected video, audio and optionally label")
        frame, audio = (checked_id(bare_id(cell), where, pattern=pattern) for cell in cells[:2])
        # The prefix keeps these ids apart from those of real clips.
        clip_id = f"silent-{frame}-{audio}"
        if frame == audio:
            report.leave_out(SILENT_SPLIT, clip_id, "frame and audio are from the same clip")
        elif cells[2:] not in ([], [_LABEL]):
            report.leave_out(SILENT_SPLIT, clip_id, f"labeled {cells[2]!r}")
        else:
            pairs[clip_id] = (frame, audio)
    if path:
        report.listed[SILENT_SPLIT] = len(rows)
        if not pairs:
            raise ManifestError(f"{path}: contains no silent clips")
    return pairs


def ids_of_pairs(pairs: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the ids whose frame or audio is used in a silent clip. Training on one of them is a leak."""
    return list(dict.fromkeys(clip_id for pair in pairs.values() for clip_id in pair))


def find_silent_clips(
    finder: MediaFinder,
    pairs: Mapping[str, tuple[str, str]],
    report: ImportReport,
    *,
    centre_s: float | None = None,
) -> list[Clip]:
    """Find the files of silent clips, in the order of the list. Clips with missing files are reported."""
    clips = []
    for clip_id, pair in pairs.items():
        frame, audio = (finder.find(part) for part in pair)
        if isinstance(frame, str) or isinstance(audio, str):
            report.leave_out(SILENT_SPLIT, clip_id, next(part for part in (frame, audio) if isinstance(part, str)))
        else:
            # Either can be a video, from which only the frame or only the audio is used.
            files = {"frame": frame.frame or frame.video, "audio": audio.audio or audio.video}
            clips.append(Clip(clip_id, centre_s=centre_s, **files))
    return clips
