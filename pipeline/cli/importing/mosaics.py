"""`soundspot import mosaic`, `music-synthetic` and `music-synthetic-build`: options only.

The importers are in `pipeline.datasets.mosaics` and `pipeline.datasets.music`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.importing.commands import PATH, importer, scheduler_option, seed_option, workers_option
from pipeline.cli.options import FiniteRange

if TYPE_CHECKING:
    from pipeline.datasets.importers.report import ImportReport
    from pipeline.datasets.importers.write import ImportOptions


@click.command()
@importer("real")
@click.option("--photos", type=PATH, required=True, help="Folder of photographs: CLASS/*, or Tiny-ImageNet.")
@click.option("--sounds", type=PATH, required=True, help="Folder of recordings: CLASS/*, or ESC-50.")
@click.option("--test-photos", type=PATH, help="Photographs of the test clips. Default: a share of --photos.")
@click.option("--test-sounds", type=PATH, help="Recordings of the test clips. Default: a share of --sounds.")
@click.option("--classes", default="", help="Use only these classes, separated by commas. Default: all.")
@click.option(
    "--grid", type=click.IntRange(2, 8), default=2, show_default=True, help="Photographs along each side of the frame."
)
@click.option(
    "--sounding", type=click.IntRange(1, 2), default=1, show_default=True, help="How many of the photographs sound."
)
@click.option("--train", type=click.IntRange(min=0), default=3000, show_default=True, help="Training clips.")
@click.option("--validation", type=click.IntRange(min=0), default=800, show_default=True, help="Validation clips.")
@click.option("--test", type=click.IntRange(min=0), default=800, show_default=True, help="Test clips.")
@click.option(
    "--shares",
    type=FiniteRange(min=0),
    nargs=3,
    default=(0.6, 0.2, 0.2),
    show_default=True,
    help="Shares of the files of each class for train, validation and test.",
)
@seed_option
@scheduler_option
@workers_option
def mosaic(options: ImportOptions, classes: str, **rest: Any) -> ImportReport:
    """Mosaics of your own photographs, each with the audio of your own recordings.

    Each clip is a grid of photographs of different classes, with a recording of the class of one of them. No photograph and no
    recording is in two splits. PNG and WAV files and mosaics.csv are written below --media. Official layouts: Tiny-ImageNet
    (train/WNID/images) and ESC-50 (meta/esc50.csv); data_manifests/mosaic_classes.yaml names their classes.

    \b
    Example:
      soundspot import mosaic --name pets --photos /data/photos --sounds /data/sounds
    """
    from dataclasses import fields

    from pipeline.datasets.mosaics.build import MosaicSettings, import_mosaics

    names = {field.name for field in fields(MosaicSettings)} & rest.keys()
    settings = MosaicSettings(**{name: rest.pop(name) for name in names})
    chosen = [name for name in classes.split(",") if name.strip()]
    return import_mosaics(options, classes=chosen, settings=settings, **rest)


@click.command("music-synthetic")
@importer("music_synthetic")
@click.option("--rebuild-sound", is_flag=True, help="Reconstruct audio from spectrograms that have no audio file.")
@scheduler_option
@workers_option
def music_synthetic(options: ImportOptions, **rest: Any) -> ImportReport:
    """MUSIC-Synthetic as published. Media: train/{audio,video} and test1/{audio,video,box}.

    The published audio consists of magnitude spectrograms; --rebuild-sound reconstructs WAV files under audio_rebuilt/.

    \b
    Example:
      soundspot import music-synthetic --media /data/music --rebuild-sound
    """
    from pipeline.datasets.music.published import import_music_synthetic

    return import_music_synthetic(options, **rest)


@click.command("music-synthetic-build")
@importer("music_synthetic")
@click.option("--solos", type=PATH, required=True, help="Folder of videos: INSTRUMENT/ID.mp4, or ID.mp4 with --list.")
@click.option("--list", "video_list", type=PATH, help='The MUSIC list: {"videos": {INSTRUMENT: [ID, ...]}}.')
@click.option("--boxes", type=PATH, help="JSON with the boxes of solo frames; required for test clips.")
@click.option(
    "--quadrant-boxes", is_flag=True, help="Use an instrument's whole quadrant as its box, instead of --boxes."
)
@click.option(
    "--test-videos", type=PATH, help="Ids of the test videos. Default: those with boxes, plus --hold-out of the others."
)
@click.option("--train", type=click.IntRange(min=0), default=25000, show_default=True, help="Training clips.")
@click.option("--test", type=click.IntRange(min=0), default=455, show_default=True, help="Test clips.")
@seed_option
@click.option(
    "--silence-db",
    type=FiniteRange(-120, 0),
    default=-40.0,
    show_default=True,
    help="Drop seconds whose RMS is this far below the video's peak.",
)
@click.option(
    "--max-shift",
    "max_shift_s",
    type=FiniteRange(0, 0.5),
    default=0.05,
    show_default=True,
    help="Maximum random time shift of the audio, seconds.",
)
@click.option(
    "--hold-out",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Fraction of the videos to test on, for instruments without boxes.",
)
@click.option(
    "--box-frame-rate",
    type=FiniteRange(min=1),
    default=30.0,
    show_default=True,
    help="Frame rate of the annotated frame numbers.",
)
@scheduler_option
@workers_option
def music_synthetic_build(options: ImportOptions, **rest: Any) -> ImportReport:
    """MUSIC-Synthetic built from solo videos: mosaics of four instruments, two of which sound.

    Frames, audio and mosaics.csv are written below --media. Train and test share no video.

    \b
    Example:
      soundspot import music-synthetic-build --solos /data/solos --boxes solotest.json
    """
    from dataclasses import fields

    from pipeline.datasets.music.build import BuildSettings, build_music_synthetic

    names = {field.name for field in fields(BuildSettings)} & rest.keys()
    settings = BuildSettings(**{name: rest.pop(name) for name in names})
    return build_music_synthetic(options, settings=settings, **rest)
