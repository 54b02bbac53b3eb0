"""MUSIC-Synthetic built from solo videos: split by video → cut → draw → compose → manifest.

No public code does this; the papers describe it in a paragraph. What they give: four different instruments, 1-second
pairs, two of four sounds mixed with jitter, instruments balanced, 25,000 training and 455 test clips. Ours: the level
below which a second is silent, equal loudness before gains of 0.8–1.25, shifts of up to 50 ms, the frame in the middle
of its second, the share of videos held out of instruments that nobody annotated.

Written below the media root: ``frames/`` and ``audio/``, ``mosaics.csv`` (where each quadrant of each clip comes from),
``rejects.csv`` (videos that could not be used), and ``segments/``, the cut videos, which a later build with another
seed or size takes up again and which may be deleted. The same input and settings give the same bytes, whatever the
number of workers and wherever the solos lie. Another build may give other media under the same names, so the card holds a
fingerprint of them.
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
from pipeline.datasets.music.media import compose_media
from pipeline.datasets.music.mosaic import mosaic_boxes, mosaic_clip
from pipeline.datasets.music.published import MUSIC_AUDIO, music_card
from pipeline.datasets.music.schedule import Mosaic, Segment, check_pool, draw_mosaics
from pipeline.datasets.music.segments import CutSettings, cut_solos
from pipeline.datasets.music.solos import Solo, find_solos, split_videos


@dataclass(frozen=True)
class BuildSettings:
    """Size and rules of the set; the sizes are the paper's, the rest is ours."""

    train: int = 25000
    test: int = 455
    seed: int = 0
    image_size: int = 224  # pixels; a quadrant has half
    silence_db: float = -40.0  # of a second's RMS, from the video's loudest sample
    max_shift_s: float = 0.05  # each sounding second is moved by up to this
    hold_out: float = 0.1  # share of an instrument's videos that is tested on, where none is annotated
    box_frame_rate: float = BOX_FRAME_RATE  # frames a second in the numbering of the annotated frames
    time_limit_s: float = 120.0  # for one frame or one sound track


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
    """Build the set: mosaics below the media root, and ``data_manifests/NAME/``.

    Parameters
    ----------
    options : ImportOptions
        Its media root is where the mosaics go; `check_only` stops after the split by video.
    solos : Path
        Folder of solo videos, ``INSTRUMENT/VIDEO_ID.mp4``, or flat with `video_list`.
    video_list : Path, optional
        The MUSIC list, ``{"videos": {INSTRUMENT: [VIDEO_ID]}}``.
    boxes : Path, optional
        Boxes of solo frames; see `pipeline.datasets.music.boxes`. Test clips take their sounding items only from seconds
        with boxes, and show the annotated frames.
    quadrant_boxes : bool
        Without `boxes`: let the box of each item be its whole quadrant (ours, and no one's annotation).
    test_videos : Path, optional
        Ids of the videos to test on; see `pipeline.datasets.music.solos.split_videos` for what is done without.
    settings : BuildSettings
    scheduler, workers
        As in `pipeline.common.cluster.run_tasks`.

    Raises
    ------
    ManifestError
        Neither or both of `boxes` and `quadrant_boxes`, malformed lists, or fewer than four instruments with usable
        videos in a split.
    """
    report = options.start()
    _check(settings, boxes, quadrant_boxes)
    # A worker of a cluster elsewhere has another working directory.
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
    # Where the solos lie is this machine's matter.
    rejects = [(video, instrument, why.replace(f"{solos}{os.sep}", "")) for video, instrument, why in rejects]
    rejects += [(video, instrument, "listed, but there is no file") for video, instrument in missing]
    write_csv(media / "rejects.csv", ("video", "instrument", "reason"), sorted(rejects))
    mosaics = _draw(segments, parts, settings, quadrant_boxes)
    digest = compose_media(
        [mosaic for part in mosaics.values() for mosaic in part],
        media,
        sample_rate=MUSIC_AUDIO.sample_rate,
        scheduler=scheduler,
        workers=workers,
    )
    _describe_clips(report, mosaics, rejects)
    dataset = _dataset(options, report, mosaics, settings, digest, quadrant_boxes=quadrant_boxes)
    write_dataset(dataset, options.project, force=options.force)
    return report


def _check(settings: BuildSettings, boxes: Path | None, quadrant_boxes: bool) -> None:
    if settings.test and (boxes is None) != quadrant_boxes:
        raise ManifestError(
            "test clips need boxes: give --boxes FILE with the boxes of solo frames, or else --quadrant-boxes to let the "
            "box of each instrument be its whole quadrant; not both"
        )
    if settings.image_size % 2 or min(settings.train, settings.test) < 0 or settings.train + settings.test < 1:
        raise ManifestError(
            f"sizes: {settings.train} training and {settings.test} test clips of {settings.image_size} pixels; "
            "give counts of which one is positive, and an even image size"
        )
    if not 0 < settings.hold_out < 1 or not 0 <= settings.max_shift_s < 1:
        raise ManifestError(
            f"hold_out {settings.hold_out:g} must lie between 0 and 1, max_shift_s {settings.max_shift_s:g} below 1 s"
        )


def _boxes(
    path: Path, solos: Sequence[Solo], report: ImportReport, settings: BuildSettings
) -> dict[str, dict[int, BoxedFrame]]:
    instruments = {solo.video: solo.instrument for solo in solos}
    boxed = read_solo_boxes(path, instruments, report, frame_rate=settings.box_frame_rate)
    if not boxed:
        raise ManifestError(f"{path}: names none of the {len(solos)} solo videos; do they have the same ids?")
    return boxed


def _split(
    solos: Sequence[Solo],
    boxed: Mapping[str, object],
    test_videos: frozenset[str] | None,
    settings: BuildSettings,
    quadrant_boxes: bool,
) -> dict[str, list[Solo]]:
    """Split by video, and make sure before hours of cutting that each split has what its mosaics need."""
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
            heard = {solo.instrument for solo in part if solo.video in boxed or not needs_boxes}
            check_pool({solo.instrument for solo in part}, heard, split=split, needs_boxes=needs_boxes)
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
            f"{len(missing)} listed videos have no file: {shortened([video for video, _ in missing], 5)}"
        )


def _describe_clips(
    report: ImportReport, mosaics: Mapping[str, Sequence[Mosaic]], rejects: Sequence[tuple[str, str, str]]
) -> None:
    for split, drawn in mosaics.items():
        report.listed[split] = len(drawn)
        sounding = Counter(item.segment.instrument for mosaic in drawn for item in mosaic.items if item.sounding)
        report.notes.append(f"{split}: sounding in so many clips: {_counted(sounding)}")
    if rejects:
        report.notes.append(f"{len(rejects)} videos are not used; rejects.csv beside the mosaics says why")


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
    kind = "whole quadrants (ours)" if quadrant_boxes else "published boxes of solo frames, carried into the mosaic"
    comments = (
        f"Boxes: {kind}; `source` is the instrument, silent instruments have sounding 0.",
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
