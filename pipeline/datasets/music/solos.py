"""Finds solo-instrument videos on disk, and splits them by video.

Conventions: a solo is a video of one instrument. Its file name is its video id, which is unique in the collection.
Instrument names are lower case with underscores (``acoustic_guitar``), as in the MUSIC video list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.files import listed
from pipeline.common.reading import read_json
from pipeline.datasets.importers.lists import SLUG, ranked, shortened
from pipeline.manifests.naming import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Solo:
    """A video in which one instrument plays alone."""

    video: str  # id
    instrument: str
    path: Path


def find_solos(folder: Path, video_list: Path | None = None) -> tuple[list[Solo], list[tuple[str, str]]]:
    """List the solo videos in a folder.

    Parameters
    ----------
    folder : Path
        Contains ``INSTRUMENT/VIDEO_ID.mp4`` or, with `video_list`, ``VIDEO_ID.mp4``.
    video_list : Path, optional
        JSON ``{"videos": {INSTRUMENT: [VIDEO_ID, ...]}}``, the format of the published MUSIC list.

    Returns
    -------
    solos : list of Solo
        Sorted by instrument, then id.
    missing : list of (video id, instrument)
        Listed videos whose file is missing.

    Raises
    ------
    ManifestError
        There are no videos, the list is malformed, or an id is not a slug or not unique.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; pass the folder of the solo videos")
    files = _video_files(folder)
    if video_list is None:
        listed = [(_instrument(path.parent.name), path.stem) for path in files if path.parent.parent == folder]
        by_id = {path.stem: path for path in files}
    else:
        listed = list(_read_video_list(video_list))
        by_id = {path.stem: path for path in files if path.parent == folder}
    _check_ids(listed, str(video_list or folder))
    solos = [Solo(video, instrument, by_id[video]) for instrument, video in sorted(listed) if video in by_id]
    if not solos:
        layout = "VIDEO_ID.mp4 with the ids of the list" if video_list else "INSTRUMENT/VIDEO_ID.mp4"
        raise ManifestError(f"{folder}: no solo videos found; expected {layout} (or another video suffix)")
    return solos, [(video, instrument) for instrument, video in sorted(listed) if video not in by_id]


def _video_files(folder: Path) -> list[Path]:
    paths = [*listed(folder), *(path for child in listed(folder) if child.is_dir() for path in listed(child))]
    return sorted(path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES)


def _instrument(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _read_video_list(path: Path) -> Iterator[tuple[str, str]]:
    videos = read_json(path, ManifestError)
    videos = videos.get("videos") if isinstance(videos, dict) else None
    if not isinstance(videos, dict):
        raise ManifestError(f'{path}: expected {{"videos": {{INSTRUMENT: [VIDEO_ID, ...]}}}}')
    for instrument, ids in videos.items():
        if not isinstance(ids, list) or not all(isinstance(video, str) for video in ids):
            raise ManifestError(f"{path}: videos.{instrument}: expected a list of video ids")
        yield from ((_instrument(instrument), video) for video in ids)


def _check_ids(listed: Sequence[tuple[str, str]], where: str) -> None:
    seen: dict[str, str] = {}
    for instrument, video in listed:
        for value in (instrument, video):
            if not SLUG.fullmatch(value):
                raise ManifestError(f"{where}: {value!r} is not a valid id; use only letters, digits, '.', '_' and '-'")
        if video in seen:
            raise ManifestError(
                f"{where}: video {video!r} is listed under both {seen[video]!r} and {instrument!r}; keep one"
            )
        seen[video] = instrument


def split_videos(
    solos: Sequence[Solo],
    *,
    annotated: frozenset[str],
    test_videos: frozenset[str] | None,
    hold_out: float,
    seed: int,
) -> tuple[list[Solo], list[Solo]]:
    """Split by video, so that training and test share no recording.

    The test videos are `test_videos`. If that is None, they are the annotated videos, plus a seeded share `hold_out` (at
    least one video) of each instrument without annotations, so that any instrument can be a silent one in a test clip
    (ours). Some videos are in two splits of the published lists; here, each is in one.

    Raises
    ------
    ManifestError
        A test video is not among the solos.
    """
    if test_videos is not None:
        unknown = sorted(test_videos - {solo.video for solo in solos})
        if unknown:
            raise ManifestError(f"no files found for these test videos: {shortened(unknown)}")
        chosen = set(test_videos)
    else:
        chosen = {solo.video for solo in solos if solo.video in annotated}
        for instrument in sorted({solo.instrument for solo in solos}):
            videos = [solo.video for solo in solos if solo.instrument == instrument]
            if not chosen.intersection(videos):  # otherwise this instrument could never occur in a test clip
                chosen.update(ranked(videos, seed)[: max(1, round(hold_out * len(videos)))])
    train = [solo for solo in solos if solo.video not in chosen]
    return train, [solo for solo in solos if solo.video in chosen]
