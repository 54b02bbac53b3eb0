"""Builds MUSIC-Synthetic from solo videos: split by video → cut → draw → compose → manifest.

There is no public code for this, and the papers describe it in one paragraph. From the papers: four different
instruments, 1-second pairs, two of the four sounds mixed with jitter, balanced instruments, 25,000 training and 455 test
clips. Ours: the silence threshold, equal loudness before gains of 0.8–1.25, shifts of up to 50 ms, the frame in the
middle of its second, and the share of test videos for instruments without annotations.

Output below the media root: ``frames/`` and ``audio/``; ``mosaics.csv``, the source of each quadrant of each clip;
``rejects.csv``, the videos that could not be used; and ``segments/``, a cache of the cut videos, which later builds with
another seed or size reuse and which can be deleted. The same input and settings give the same bytes, independent of the
number of workers and of the folder of the solos. A build with other settings writes other media under the same names, so
the card contains a fingerprint of the media.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.files import write_csv
from pipeline.datasets.importers.lists import read_ids, shortened
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import Dataset, ImportOptions, write_dataset
from pipeline.datasets.music.boxes import BOX_FRAME_RATE, BoxedFrame, read_solo_boxes
from pipeline.datasets.music.media import OWN_FILE, claimed, compose_media
from pipeline.datasets.music.mosaic import mosaic_boxes, mosaic_clip
from pipeline.datasets.music.published import MUSIC_AUDIO, music_card
from pipeline.datasets.music.schedule import Mosaic, Segment, check_pool, draw_mosaics
from pipeline.datasets.music.segments import CutSettings, cut_solos
from pipeline.datasets.music.solos import Solo, find_solos, split_videos


@dataclass(frozen=True)
class BuildSettings:
    """Size and rules of the dataset. The sizes are the paper's, the rest is ours."""

    train: int = 25000
    test: int = 455
    seed: int = 0
    image_size: int = 224  # pixels; a quadrant has half of it
    silence_db: float = -40.0  # a second with a lower RMS counts as silent; relative to the video's loudest sample
    max_shift_s: float = 0.05  # largest time shift of a sounding second
    hold_out: float = 0.1  # share of test videos for instruments without annotations
    box_frame_rate: float = BOX_FRAME_RATE  # frame rate behind the numbers of the annotated frames
    time_limit_s: float = 120.0  # for decoding one frame or one audio track


def build_music_synthetic(
    options: ImportOptions,
    *,
    solos: Path,
    video_list: Path | None = None,
    boxes: Path | None = None,
    quadrant_boxes: bool = False,
    test_videos: Path | None = None,
    settings: BuildSettings,
    scheduler: str | None = None,
    workers: int | None = None,
) -> ImportReport:
    """Build the dataset: mosaics below the media root, and ``data_manifests/NAME/``.

    Parameters
    ----------
    options : ImportOptions
        The mosaics are written below its media root. `check_only` stops after the split by video.
    solos : Path
        Folder of solo videos, ``INSTRUMENT/VIDEO_ID.mp4``, or flat with `video_list`.
    video_list : Path, optional
        The MUSIC list, ``{"videos": {INSTRUMENT: [VIDEO_ID]}}``.
    boxes : Path, optional
        Boxes of solo frames; see `pipeline.datasets.music.boxes`. The sounding items of test clips then come only from
        seconds with boxes, and show the annotated frames.
    quadrant_boxes : bool
        Instead of `boxes`: use the whole quadrant as the box of each item (ours, not an annotation).
    test_videos : Path, optional
        Ids of the videos to test on. For the default, see `pipeline.datasets.music.solos.split_videos`.
    settings : BuildSettings
    scheduler, workers
        As in `pipeline.common.cluster.run_tasks`.

    Raises
    ------
    ManifestError
        Neither or both of `boxes` and `quadrant_boxes` are given, a list is malformed, or a split has usable videos of
        fewer than four instruments.
    """
    report = options.start()
    _check(settings, boxes, quadrant_boxes)
    # Workers on another machine have another working directory.
    media, solos = options.media.absolute(), solos.absolute()
    found, missing = find_solos(solos, video_list)
    boxed = {} if boxes is None else _boxes(boxes, found, report, settings)
    chosen = frozenset(read_ids(test_videos).ids) if test_videos else None
    parts = _split(found, boxed, chosen, settings, quadrant_boxes)
    _describe_videos(report, parts, missing)
    if options.check_only:
        return report
    segments, rejects = cut_solos(
        [solo for part in parts.values() for solo in part],
        {solo.video: boxed[solo.video] for solo in parts["test"] if solo.video in boxed},
        media / "segments",
        settings=CutSettings(
            settings.image_size // 2, MUSIC_AUDIO.sample_rate, settings.silence_db, settings.time_limit_s
        ),
        scheduler=scheduler,
        workers=workers,
    )
    # Keep paths of this machine out of rejects.csv.
    rejects = [(video, instrument, why.replace(f"{solos}{os.sep}", "")) for video, instrument, why in rejects]
    rejects += [(video, instrument, "listed, but the file is missing") for video, instrument in missing]
    mosaics = _draw(segments, parts, settings, quadrant_boxes)
    with claimed(media, options.name, OWN_FILE):
        digest = compose_media(
            [mosaic for part in mosaics.values() for mosaic in part],
            media,
            sample_rate=MUSIC_AUDIO.sample_rate,
            keep=options.media_to_keep(),
            scheduler=scheduler,
            workers=workers,
        )
    write_csv(media / "rejects.csv", ("video", "instrument", "reason"), sorted(rejects))
    _describe_clips(report, mosaics, rejects)
    dataset = _dataset(options, report, mosaics, settings, digest, quadrant_boxes=quadrant_boxes)
    write_dataset(dataset, options.project, force=options.force)
    return report


def _check(settings: BuildSettings, boxes: Path | None, quadrant_boxes: bool) -> None:
    if settings.test and (boxes is None) != quadrant_boxes:
        raise ManifestError(
            "test clips need boxes: pass either --boxes FILE with the boxes of solo frames, or --quadrant-boxes to use "
            "each instrument's whole quadrant as its box"
        )
    if settings.image_size % 2 or min(settings.train, settings.test) < 0 or settings.train + settings.test < 1:
        raise ManifestError(
            f"cannot build {settings.train} training and {settings.test} test clips of {settings.image_size} pixels; at "
            "least one count must be positive, and the image size even"
        )
    if not 0 < settings.hold_out < 1 or not 0 <= settings.max_shift_s < 1:
        raise ManifestError(
            f"hold_out must be between 0 and 1, got {settings.hold_out:g}; max_shift_s must be at least 0 and below 1 s, "
            f"got {settings.max_shift_s:g}"
        )


def _boxes(
    path: Path, solos: Sequence[Solo], report: ImportReport, settings: BuildSettings
) -> dict[str, dict[int, BoxedFrame]]:
    instruments = {solo.video: solo.instrument for solo in solos}
    boxed = read_solo_boxes(path, instruments, report, frame_rate=settings.box_frame_rate)
    if not boxed:
        raise ManifestError(f"{path}: has boxes for none of the {len(solos)} solo videos; check that the ids match")
    return boxed


def _split(
    solos: Sequence[Solo],
    boxed: Mapping[str, object],
    test_videos: frozenset[str] | None,
    settings: BuildSettings,
    quadrant_boxes: bool,
) -> dict[str, list[Solo]]:
    """Split by video. Checks that each split has enough instruments now, before hours of cutting."""
    train, test = split_videos(
        solos,
        annotated=frozenset(boxed),
        test_videos=test_videos,
        hold_out=settings.hold_out,
        seed=settings.seed,
    )
    parts = {"train": train if settings.train else [], "test": test if settings.test else []}
    for split, part in parts.items():
        needs_boxes = split == "test" and not quadrant_boxes
        if part or getattr(settings, split):
            can_sound = {solo.instrument for solo in part if solo.video in boxed or not needs_boxes}
            check_pool({solo.instrument for solo in part}, can_sound, split=split, needs_boxes=needs_boxes)
    return parts


def _draw(
    segments: Sequence[Segment], parts: Mapping[str, Sequence[Solo]], settings: BuildSettings, quadrant_boxes: bool
) -> dict[str, list[Mosaic]]:
    mosaics = {}
    for split, part in parts.items():
        videos = {solo.video for solo in part}
        if videos:
            mosaics[split] = draw_mosaics(
                [segment for segment in segments if segment.video in videos],
                split=split,
                count=getattr(settings, split),
                seed=settings.seed,
                max_shift=round(settings.max_shift_s * MUSIC_AUDIO.sample_rate),
                needs_boxes=split == "test" and not quadrant_boxes,
            )
    return mosaics


def _describe_videos(
    report: ImportReport, parts: Mapping[str, Sequence[Solo]], missing: Sequence[tuple[str, str]]
) -> None:
    for split, part in parts.items():
        counts = Counter(solo.instrument for solo in part)
        report.notes.append(f"{split}: {len(part)} solo videos: {_counted(counts)}")
    if missing:
        report.notes.append(
            f"the files of {len(missing)} listed videos are missing: {shortened([video for video, _ in missing], 5)}"
        )


def _describe_clips(
    report: ImportReport, mosaics: Mapping[str, Sequence[Mosaic]], rejects: Sequence[tuple[str, str, str]]
) -> None:
    for split, drawn in mosaics.items():
        report.listed[split] = len(drawn)
        sounding = Counter(item.segment.instrument for mosaic in drawn for item in mosaic.items if item.sounding)
        report.notes.append(f"{split}: clips in which each instrument sounds: {_counted(sounding)}")
    if rejects:
        report.notes.append(f"{len(rejects)} videos were not used; rejects.csv in the media root lists the reasons")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _dataset(
    options: ImportOptions,
    report: ImportReport,
    mosaics: Mapping[str, Sequence[Mosaic]],
    settings: BuildSettings,
    media_fingerprint: str,
    *,
    quadrant_boxes: bool,
) -> Dataset:
    kind = "whole quadrants (ours)" if quadrant_boxes else "published boxes of solo frames, mapped to the mosaic"
    comments = (
        f"Boxes: {kind}; `source` is the instrument; silent instruments have sounding 0.",
        f"Built with seed {settings.seed}; silence below {settings.silence_db:g} dB, shifts up to {settings.max_shift_s:g} s.",
    )
    card = music_card("Built from solo videos by `soundspot import music-synthetic-build`", comments)
    card = replace(card, media_fingerprint=media_fingerprint)
    clips = {split: [mosaic_clip(mosaic) for mosaic in drawn] for split, drawn in mosaics.items()}
    boxes = {
        "test": [
            box for mosaic in mosaics.get("test", ()) for box in mosaic_boxes(mosaic, whole_quadrants=quadrant_boxes)
        ]
    }
    return Dataset.of(options, card, report, clips, boxes)
