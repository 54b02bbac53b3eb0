"""Imports your own data: a folder of videos, or a clip list in this project's format; boxes are optional.

All subfolders are searched, except hidden and symbolically linked ones. A file counts as a video if its suffix or its
first bytes match a known container. Each video is opened, and videos without a video or audio stream are reported. A
clip's id is its path without the suffix, converted to a slug: ``/`` becomes ``--``, and any other character that is not
allowed becomes ``_``. If that loses letters, or if the path is too long, eight hexadecimal digits of the path's hash are
appended. Two files with the same id are an error.

The test clips are those of the test list; without a list, the clips with boxes; without boxes, a seeded share. The share
is drawn by file, so that clips cut from the same video are always in the same split. Adding or removing files does not
reshuffle the others.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pipeline.common.errors import ManifestError, MediaError
from pipeline.datasets.importers.layouts import AUDIO_SUFFIXES, FRAME_SUFFIXES, VIDEO_SUFFIXES, unusable
from pipeline.datasets.importers.leaks import apply_leak_policy
from pipeline.datasets.importers.lists import ranked, read_rows, shortened
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import CardText, Dataset, ImportOptions, write_dataset
from pipeline.manifests.boxes import Box, read_boxes
from pipeline.manifests.clips import Clip, read_clips
from pipeline.media.container import Deadline, MediaContainer

CARD = CardText(
    title="Own videos",
    source="A local folder",
    license="To be filled in by the owner of the videos",
    image_size=256,
    protocol="paper256",
    comments=(
        "Imported from a folder; you can edit any value. The audio settings are the paper's for SoundNet-Flickr.",
        "If your videos are shorter than clip_seconds, reduce it.",
    ),
)
WHOLE = "folder"  # the report's heading for clips that are not in a split yet
PROBE_LIMIT_S = 10.0  # opening a video takes milliseconds; a file that takes this long is broken
_ID_LENGTH = 128  # the limit of a slug
_SIGNATURES = (  # (offset, bytes) of common containers
    (4, b"ftyp"),
    (0, b"\x1aE\xdf\xa3"),
    (8, b"AVI "),
    (0, b"FLV\x01"),
    (0, b"\x00\x00\x01\xba"),
    (0, b"\x30\x26\xb2\x75"),
)


def import_folder(
    options: ImportOptions,
    *,
    clip_list: Path | None = None,
    test_list: Path | None = None,
    boxes: Path | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> ImportReport:
    """Write ``data_manifests/NAME/`` for a folder of videos.

    Parameters
    ----------
    options : ImportOptions
        `media` is the folder; there are no layouts. A training clip from a file of the test set is a leak. `check_only`
        opens the files too, but writes nothing.
    clip_list : Path, optional
        Import these clips instead of every video in the folder. Paths are relative to the folder.
    test_list : Path, optional
        The test clips: clip ids, or paths of videos relative to the folder.
    boxes : Path, optional
        Boxes of test clips, in this project's format.
    test_share : float in [0, 1]
        Share of files for testing if neither a test list nor boxes are given.
    seed : int
        Seed of that draw.

    Raises
    ------
    ManifestError
        There are no usable videos, ids collide, a list or a box refers to an unknown clip, or splits leak.
    """
    report = options.start()
    if not options.media.is_dir():
        raise ManifestError(f"{options.media}: no such folder; set --media to the folder of your videos")
    clips = read_clips(clip_list) if clip_list else found_videos(options.media, report)
    clips = _usable(clips, options.media, report)
    report.listed = {WHOLE: len(clips) + len(report.left_out.get(WHOLE, {}))}
    unused = report.left_out.get(WHOLE, {})
    # Boxes of clips that were just rejected are not a mistake of the user; boxes of unknown clips are, see below.
    truth = [box for box in read_boxes(boxes) if box.clip_id not in unused] if boxes else []
    report.n_boxes = len(truth)
    test = _test_ids(clips, test_list, truth, test_share, seed, report)
    _refuse_strangers(truth, test, boxes)
    train = apply_leak_policy(
        report, [clip.clip_id for clip in clips if clip.clip_id not in test], _leaks(clips, test), options
    )
    if options.check_only:
        return report
    split = {
        "train": [clip for clip in clips if clip.clip_id in set(train)],
        "test": [clip for clip in clips if clip.clip_id in test],
    }
    write_dataset(Dataset.of(options, CARD, report, split, {"test": truth}), options.project, force=options.force)
    return report


def found_videos(folder: Path, report: ImportReport) -> list[Clip]:
    """List the videos in a folder and its subfolders, sorted by path, and report the number of other files.

    Raises
    ------
    ManifestError
        Two videos would get the same id.
    """
    clips: dict[str, Clip] = {}
    others = 0
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if not _looks_like_video(path):
            others += 1
            continue
        clip = Clip(slug(name), video=name)
        if clip.clip_id in clips:
            both = f"{clips[clip.clip_id].video!r} and {name!r}"
            raise ManifestError(f"{folder}: {both} would both get the id {clip.clip_id!r}; rename one of them")
        clips[clip.clip_id] = clip
    if others:
        report.notes.append(f"{others} files in the folder are not videos")
    return list(clips.values())


def slug(path: str) -> str:
    """Return the clip id for a path relative to the media root; see the module's docstring."""
    stem = PurePosixPath(path).with_suffix("").as_posix()
    plain = unicodedata.normalize("NFKD", stem).replace("/", "--")
    readable = "".join(letter for letter in plain if not unicodedata.combining(letter))
    clip_id = re.sub(r"[^A-Za-z0-9._-]", "_", readable)
    lost = any(letter.isalnum() and not letter.isascii() for letter in readable)
    if not lost and len(clip_id) <= _ID_LENGTH:
        return clip_id
    digest = hashlib.sha256(stem.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    # Keep the end of the path: names differ there more often than in their folders.
    return f"{clip_id[-(_ID_LENGTH - 9) :]}-{digest}"


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        # Assigning in place prunes and orders the walk itself.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _looks_like_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix in (*FRAME_SUFFIXES, *AUDIO_SUFFIXES) or not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(16)
    return any(head[offset : offset + len(mark)] == mark for offset, mark in _SIGNATURES)


def _usable(clips: Sequence[Clip], folder: Path, report: ImportReport) -> list[Clip]:
    """Open each file once. Unusable clips are not in a split yet, so they are reported for the whole folder."""
    reasons: dict[str, str] = {}
    kept = []
    for clip in clips:
        reason = unusable(clip, folder)
        if not reason and clip.video:
            if clip.video not in reasons:
                # For file names that are not UTF-8, Python has lone surrogates, which cannot be written to a clip list.
                not_utf8 = any("\udc80" <= letter <= "\udcff" for letter in clip.video)
                reasons[clip.video] = (
                    "its name is not UTF-8; rename it" if not_utf8 else _stream_problem(folder / clip.video)
                )
            reason = reasons[clip.video]
        if reason:
            report.leave_out(WHOLE, clip.clip_id, reason)
        else:
            kept.append(clip)
    return kept


def _stream_problem(path: Path) -> str:
    try:
        with MediaContainer(path, deadline=Deadline(PROBE_LIMIT_S)) as source:
            missing = [kind for kind, stream in (("video", source.video), ("audio", source.audio)) if stream is None]
    except MediaError:
        return "cannot be opened as a media file"
    return f"has no {' and no '.join(missing)} stream" if missing else ""


def _test_ids(
    clips: Sequence[Clip],
    test_list: Path | None,
    truth: Sequence[Box],
    share: float,
    seed: int,
    report: ImportReport,
) -> set[str]:
    if test_list:
        return _listed_test_ids(clips, test_list, report)
    if truth:
        return {box.clip_id for box in truth} & {clip.clip_id for clip in clips}
    # By file, not by clip: two clips of one video must not end up in both splits.
    files = {_file(clip) for clip in clips}
    drawn = set(ranked(files, seed)[: round(share * len(files))])
    return {clip.clip_id for clip in clips if _file(clip) in drawn}


def _listed_test_ids(clips: Sequence[Clip], path: Path, report: ImportReport) -> set[str]:
    by_name = {clip.clip_id: clip.clip_id for clip in clips} | {
        clip.video: clip.clip_id for clip in clips if clip.video
    }
    ids: set[str] = set()
    for line, cells in read_rows(path):
        if cells[0] in by_name:
            ids.add(by_name[cells[0]])
        elif cells[0] not in report.left_out.get(WHOLE, {}) and (line, cells[0]) != (1, "clip_id"):
            raise ManifestError(
                f"{path}:{line}: {cells[0]!r} is neither a clip id nor the path of a video in the folder"
            )
    return ids


def _refuse_strangers(truth: Sequence[Box], test: set[str], boxes: Path | None) -> None:
    strangers = sorted({box.clip_id for box in truth} - test)
    if strangers:
        raise ManifestError(
            f"{boxes}: has boxes for {len(strangers)} clips that are not test clips: {shortened(strangers)}"
        )


def _file(clip: Clip) -> str:
    return clip.video or clip.audio


def _leaks(clips: Sequence[Clip], test: set[str]) -> list[str]:
    files = {name for clip in clips if clip.clip_id in test for name in clip.media}
    return [clip.clip_id for clip in clips if clip.clip_id not in test and files.intersection(clip.media)]
