"""Imports your own data: a folder of videos, or a clip list in this project's format; boxes are optional.

All subfolders are searched, except hidden and symbolically linked ones. A file counts as a video if its suffix or its
first bytes match a known container. Each video is opened, and videos without a video or audio stream are reported. How a
clip's id follows from its path, and what happens to files with the same name, is in `pipeline.manifests.naming`. If a
dataset is imported again, the files that it already has keep their ids.

A list or a box file can name a clip by its id, or by its path with or without the suffix. Differences of case, Unicode
form and slashes, and lost leading zeros, are understood as long as only one clip fits.

The test clips are those of the test list; without a list, the clips with boxes; without boxes, a seeded share. The share
is drawn by file, so that clips cut from the same video are always in the same split. Adding or removing files does not
reshuffle the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError, MediaError, SettingsError
from pipeline.common.project import manifest_folder
from pipeline.common.text_table import counted
from pipeline.datasets.importers.layouts import unusable
from pipeline.datasets.importers.leaks import apply_leak_policy
from pipeline.datasets.importers.lists import ClipLists, ranked, shortened
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import CardText, Dataset, ImportOptions, write_dataset
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import TEST_SPLIT, TRAIN_SPLIT, Clip, read_clips
from pipeline.manifests.naming import MEDIA_SUFFIXES, VIDEO_SUFFIXES, Names, distinct_ids, slug
from pipeline.media.container import Deadline, MediaContainer

CARD = CardText(
    title="Own videos",
    source="A local folder",
    license="To be filled in by the owner of the videos",
    image_size=256,
    protocol="paper256",
    fits_settings=True,
    comments=(
        "Imported from a folder; you can edit any value. The audio settings are the paper's for SoundNet-Flickr.",
        "If your videos are shorter than clip_seconds, reduce it.",
    ),
)
WHOLE = "folder"  # the report's heading for clips that are not in a split yet
PROBE_LIMIT_S = 10.0  # opening a video takes milliseconds; a file that takes this long is broken
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
    image_size: int = CARD.image_size,
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
        The test clips, one per line.
    boxes : Path, optional
        Boxes of test clips, in the columns of ``test_boxes.csv``.
    test_share : float in [0, 1]
        Share of files for testing if neither a test list nor boxes are given.
    seed : int
        Seed of that draw.
    image_size : int
        Width and height of the stored frames, pixels. If the dataset is imported again, it keeps the values of its card.

    Raises
    ------
    ManifestError
        There are no usable videos, a list or a box refers to an unknown clip or to several, or splits leak.
    """
    report = options.start()
    if not options.media.is_dir():
        raise ManifestError(f"{options.media}: no such folder; set --media to the folder of your videos")
    if clip_list:
        listed = _with_files(read_clips(clip_list), options.media, report)
    else:
        listed = found_videos(options.media, report, kept=earlier_ids(options.project, options.name))
    clips = _usable(listed, options.media, report)
    report.listed = {WHOLE: len(listed)}
    unused = report.left_out.get(WHOLE, {})
    lists = ClipLists(listed)
    # Boxes of clips that were just rejected are not a mistake of the user; boxes of unknown clips are, see below.
    truth = [box for box in lists.boxes(boxes) if box.clip_id not in unused] if boxes else []
    report.n_boxes = len(truth)
    test = lists.ids(test_list) - unused.keys() if test_list else _test_ids(clips, truth, test_share, seed)
    for path, understood in lists.understood.items():
        _note_differences(report, path.name, understood)
    _refuse_strangers(truth, test, boxes)
    train = set(
        apply_leak_policy(
            report, [clip.clip_id for clip in clips if clip.clip_id not in test], _leaks(clips, test), options
        )
    )
    if options.check_only:
        return report
    split = {
        "train": [clip for clip in clips if clip.clip_id in train],
        "test": [clip for clip in clips if clip.clip_id in test],
    }
    card = _card(options, image_size)
    write_dataset(Dataset.of(options, card, report, split, {"test": truth}), options.project, force=options.force)
    return report


def found_videos(folder: Path, report: ImportReport, *, kept: Mapping[str, str] | None = None) -> list[Clip]:
    """List the videos in a folder and its subfolders, sorted by path.

    The report receives the number of other files, and a note if files have the same name. `kept` are the ids of an earlier
    import, by path; see `pipeline.manifests.naming.distinct_ids`.
    """
    names: list[str] = []
    others = 0
    for path in _files(folder):
        if _looks_like_video(path):
            names.append(path.relative_to(folder).as_posix())
        else:
            others += 1
    if others:
        report.notes.append(f"{counted(others, 'file')} in the folder ignored: no video")
    ids = distinct_ids(names, kept)
    if longer := [name for name in names if ids[name] != slug(name)]:
        report.notes.append(
            f"{counted(len(longer), 'file')} with the same name as another one, apart from the suffix, the case, or characters that "
            f"ids cannot have; their ids are longer, such as {ids[longer[0]]!r} for {longer[0]!r}"
        )
    return [Clip(ids[name], video=name) for name in names]


def _card(options: ImportOptions, image_size: int) -> CardText:
    """Return the card; that of an earlier import keeps its values, which the user may have edited."""
    try:
        old = load_card(manifest_folder(options.project, options.name))
    except SettingsError:  # none yet, or a damaged one, which is replaced
        return replace(CARD, image_size=image_size)
    if old.render or old.evaluation.grid:  # not of a folder of videos
        return replace(CARD, image_size=image_size)
    return replace(
        CARD,
        title=old.title,
        source=old.source,
        license=old.license,
        image_size=old.image_size,
        protocol=old.evaluation.protocol,
        threshold=old.evaluation.threshold,
        audio=old.audio,
    )


def earlier_ids(project: Path, name: str) -> dict[str, str]:
    """Return path → id of the clips of an imported dataset; empty if there is none.

    If the dataset is imported again, its files keep these ids, so that its boxes and results keep their meaning.
    """
    ids: dict[str, str] = {}
    for split in (TRAIN_SPLIT, TEST_SPLIT):
        path = manifest_folder(project, name) / f"{split}.csv"
        try:
            ids |= {clip.video: clip.clip_id for clip in read_clips(path) if clip.video}
        except ManifestError:  # none yet, or a damaged one, which is replaced
            continue
    return ids


def _with_files(clips: Sequence[Clip], folder: Path, report: ImportReport) -> list[Clip]:
    """Correct paths that differ from a file only in case or Unicode form, as they do after a copy from another system."""
    if all((folder / medium).is_file() for clip in clips for medium in clip.media):
        return list(clips)
    files = Names((name, name) for name in (path.relative_to(folder).as_posix() for path in _files(folder)))
    corrected: dict[str, str] = {}
    for medium in {medium for clip in clips for medium in clip.media if not (folder / medium).is_file()}:
        if len(found := files.find_path(medium)) == 1:
            corrected[medium] = found[0]
    _note_differences(report, "the clip list", corrected)
    fields = ("video", "frame", "audio")
    return [replace(c, **{f: corrected.get(getattr(c, f), getattr(c, f)) for f in fields}) for c in clips]


def _note_differences(report: ImportReport, what: str, understood: Mapping[str, str]) -> None:
    if understood:
        name, meant = min(understood.items())
        report.notes.append(
            f"{what}: {counted(len(understood), 'name')} written differently, such as {name!r} for {meant!r}"
        )


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=_refuse):
        # Assigning in place prunes and orders the walk itself.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    # Its clips would otherwise disappear from the dataset.
    raise ManifestError(
        f"{error.filename}: cannot be read ({error.strerror}); fix its permissions, or move it out of the folder"
    )


def _looks_like_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix in MEDIA_SUFFIXES or not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False  # not known to be a video
    return any(head[offset : offset + len(mark)] == mark for offset, mark in _SIGNATURES)


def _usable(clips: Sequence[Clip], folder: Path, report: ImportReport) -> list[Clip]:
    """Open each file once. Unusable clips are not in a split yet, so they are reported for the whole folder."""
    reasons: dict[str, str] = {}
    kept = []
    for clip in clips:
        reason = unusable(clip, folder)
        if not reason and clip.video:
            if clip.video not in reasons:
                reasons[clip.video] = _name_problem(clip.video) or _stream_problem(folder / clip.video)
            reason = reasons[clip.video]
        if reason:
            report.leave_out(WHOLE, clip.clip_id, reason)
        else:
            kept.append(clip)
    return kept


def _name_problem(name: str) -> str:
    """Return why a path cannot be written to a clip list, which must be readable on every system."""
    # For file names that are not UTF-8, Python has lone surrogates.
    if any("\udc80" <= letter <= "\udcff" for letter in name):
        return "its name is not UTF-8; rename it"
    if name != name.strip() or "\\" in name or name[1:2] == ":":
        return "its name has a backslash, a space at its start or end, or starts like a drive (5:); rename it"
    return ""


def _stream_problem(path: Path) -> str:
    try:
        with MediaContainer(path, deadline=Deadline(PROBE_LIMIT_S)) as source:
            missing = [kind for kind, stream in (("video", source.video), ("audio", source.audio)) if stream is None]
    except MediaError:
        return "cannot be opened as a media file"
    return f"has no {' and no '.join(missing)} stream" if missing else ""


def _test_ids(clips: Sequence[Clip], truth: Sequence[Box], share: float, seed: int) -> set[str]:
    if truth:
        return {box.clip_id for box in truth} & {clip.clip_id for clip in clips}
    # By file, not by clip: two clips of one video must not end up in both splits.
    files = {_file(clip) for clip in clips}
    drawn = set(ranked(files, seed)[: round(share * len(files))])
    return {clip.clip_id for clip in clips if _file(clip) in drawn}


def _refuse_strangers(truth: Sequence[Box], test: set[str], boxes: Path | None) -> None:
    if strangers := sorted({box.clip_id for box in truth} - test):
        outside = f"{counted(len(strangers), 'clip')} outside the test set"
        raise ManifestError(f"{boxes}: has boxes for {outside}: {shortened(strangers)}")


def _file(clip: Clip) -> str:
    return clip.video or clip.audio


def _leaks(clips: Sequence[Clip], test: set[str]) -> list[str]:
    files = {name for clip in clips if clip.clip_id in test for name in clip.media}
    return [clip.clip_id for clip in clips if clip.clip_id not in test and files.intersection(clip.media)]
