"""A user's own data: a folder of videos, or a clip list in this project's columns; boxes optional.

Videos are looked for in all subfolders, hidden ones and linked folders left aside. A file counts as a video if its
suffix or its first bytes say so; each is then opened, and one without picture or without sound is reported. A clip's id
is its path without the suffix, written as a slug: ``/`` becomes ``--``, any other character that a slug may not have
becomes ``_``. Where letters are lost that way (or the path is too long) eight hexadecimal digits of the path's hash
follow. Two files with the same id are refused.

Which clips are tested on: those of the test list; or else those that have boxes; or else a seeded share. The share is
drawn by file, so that two clips cut from one video never stand on both sides, and it does not change for the others when
files are added or removed.
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
    source="A folder of this machine",
    license="To be filled in by the owner of the videos",
    image_size=256,
    protocol="paper256",
    comments=(
        "Imported from a folder; every value may be edited. The audio setting is the paper's for SoundNet-Flickr:",
        "shorten clip_seconds if the videos are shorter.",
    ),
)
WHOLE = "folder"  # where the report counts what is in no split yet
PROBE_LIMIT_S = 10.0  # opening a video takes milliseconds; a file that takes longer is not usable
_ID_LENGTH = 128
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
        `media` is the folder; there is no layout. A clip of the training set that comes from a file of the test set is
        a leak. With `check_only` the files are looked at too, but nothing is written.
    clip_list : Path, optional
        Take these clips instead of every video in the folder; paths are relative to the folder.
    test_list : Path, optional
        Clip ids, or paths of videos relative to the folder, to test on.
    boxes : Path, optional
        Boxes in this project's columns, of test clips.
    test_share : float in [0, 1]
        Share of the files to test on when neither a test list nor boxes are given.
    seed : int
        For that share.

    Raises
    ------
    ManifestError
        There are no usable videos, ids collide, a list or box names a clip that is not there, or splits leak.
    """
    report = options.start()
    if not options.media.is_dir():
        raise ManifestError(f"{options.media}: no such folder; give the folder of videos with --media")
    clips = read_clips(clip_list) if clip_list else found_videos(options.media, report)
    clips = _usable(clips, options.media, report)
    report.listed = {WHOLE: len(clips) + len(report.left_out.get(WHOLE, {}))}
    unused = report.left_out.get(WHOLE, {})
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
    """List the videos in a folder and its subfolders by path, and note how many other files there are.

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
            raise ManifestError(f"{folder}: {both} would both be called {clip.clip_id!r}; rename one of them")
        clips[clip.clip_id] = clip
    if others:
        report.notes.append(f"{others} files in the folder are no videos")
    return list(clips.values())


def slug(path: str) -> str:
    """Return the clip id of a path below the media root; see the module's conventions."""
    stem = PurePosixPath(path).with_suffix("").as_posix()
    plain = unicodedata.normalize("NFKD", stem).replace("/", "--")
    readable = "".join(letter for letter in plain if not unicodedata.combining(letter))
    clip_id = re.sub(r"[^A-Za-z0-9._-]", "_", readable)
    lost = any(letter.isalnum() and not letter.isascii() for letter in readable)
    if not lost and len(clip_id) <= _ID_LENGTH:
        return clip_id
    digest = hashlib.sha256(stem.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{clip_id[-(_ID_LENGTH - 9) :]}-{digest}"


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
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
    """Look at each file once; what cannot be used is in no split yet, and is reported for the folder as a whole."""
    reasons: dict[str, str] = {}
    kept = []
    for clip in clips:
        reason = unusable(clip, folder)
        if not reason and clip.video:
            if clip.video not in reasons:
                # Python keeps each byte of a name that is not UTF-8 as a lone surrogate, which no clip list can hold.
                unwritable = any("\udc80" <= letter <= "\udcff" for letter in clip.video)
                wrong = "its name is not UTF-8; rename it" if unwritable else _what_is_wrong(folder / clip.video)
                reasons[clip.video] = wrong
            reason = reasons[clip.video]
        if reason:
            report.leave_out(WHOLE, clip.clip_id, reason)
        else:
            kept.append(clip)
    return kept


def _what_is_wrong(path: Path) -> str:
    try:
        with MediaContainer(path, deadline=Deadline(PROBE_LIMIT_S)) as source:
            missing = [kind for kind, stream in (("picture", source.video), ("sound", source.audio)) if stream is None]
    except MediaError:
        return "cannot be read as media"
    return f"has no {' and no '.join(missing)}" if missing else ""


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
            raise ManifestError(f"{path}:{line}: {cells[0]!r} is neither a clip id nor a path in the folder")
    return ids


def _refuse_strangers(truth: Sequence[Box], test: set[str], boxes: Path | None) -> None:
    strangers = sorted({box.clip_id for box in truth} - test)
    if strangers:
        raise ManifestError(f"{boxes}: boxes of {len(strangers)} clips that are not tested on: {shortened(strangers)}")


def _file(clip: Clip) -> str:
    return clip.video or clip.audio


def _leaks(clips: Sequence[Clip], test: set[str]) -> list[str]:
    files = {name for clip in clips if clip.clip_id in test for name in clip.media}
    return [clip.clip_id for clip in clips if clip.clip_id not in test and files.intersection(clip.media)]
