"""`soundspot import NAME`: one command per dataset, which writes ``data_manifests/NAME/``.

This module only defines the options; the importers are in `pipeline.datasets`. Commands of other modules are listed in
`ELSEWHERE`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import FiniteRange
from pipeline.common.console import LazyGroup, echo
from pipeline.common.project import DATA_FOLDER, PARAMS_FILE, manifest_folder

if TYPE_CHECKING:
    from pipeline.datasets.importers.report import ImportReport
    from pipeline.datasets.importers.write import ImportOptions

ELSEWHERE = {  # command name → module:attribute
    "mosaic": "pipeline.cli.importing.mosaics:mosaic",
    "music-synthetic": "pipeline.cli.importing.mosaics:music_synthetic",
    "music-synthetic-build": "pipeline.cli.importing.mosaics:music_synthetic_build",
}
PATH = click.Path(path_type=Path)
Command = Callable[..., Any]


@click.group(name="import", cls=LazyGroup, commands_at=ELSEWHERE)
def imports() -> None:
    """Write a dataset's card, clip lists and boxes to data_manifests/NAME/, from a local copy of its files.

    Nothing is downloaded. Everything is checked first and written atomically. Clips that are left out are listed with the
    reason, on the console and in import_report.json.

    Example: soundspot import demo
    """


preset_option = click.option(
    "--preset", help="Block of `training` in params.yaml to copy for the new dataset. Default: one that suits it."
)


def importer(default_name: str | None, layouts: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Add the options shared by all importers; the command receives them as `ImportOptions`, plus its own options."""

    def decorate(function: Callable[..., ImportReport]) -> Command:
        @functools.wraps(function)
        def command(
            *,
            name: str,
            media: Path | None,
            leaks: str,
            force: bool,
            check_only: bool,
            report_file: Path | None,
            preset: str | None,
            layout: str = "auto",
            **rest: Any,
        ) -> None:
            from pipeline.datasets.importers.write import ImportOptions
            from pipeline.manifests.prepared import local_media_root_from_environment

            media = media or local_media_root_from_environment(name) or Path(DATA_FOLDER) / name / "media"
            options = ImportOptions(name, media, Path.cwd(), layout, leaks, force, check_only, report_file, preset)
            # The report is written even if the import is refused.
            try:
                _show(function(options, **rest), options)
            finally:
                options.write_report()

        decorated: Command = command
        for option in reversed(_shared_options(default_name, layouts)):
            decorated = option(decorated)
        return decorated

    return decorate


def _shared_options(default_name: str | None, layouts: tuple[str, ...]) -> list[Callable[[Command], Command]]:
    about = "Name of the dataset in data_manifests/ and params.yaml."
    options: list[Callable[[Command], Command]] = [
        click.option("--name", default=default_name, show_default=True, help=about)
        if default_name
        else click.option("--name", required=True, help=about),
        click.option(
            "--media",
            type=PATH,
            help="Media root. Default: $SOUNDSPOT_MEDIA_ROOT_NAME, $SOUNDSPOT_MEDIA_ROOT, or data/NAME/media.",
        ),
        click.option(
            "--leaks",
            type=click.Choice(["refuse", "drop", "keep"]),
            default="refuse",
            show_default=True,
            help="If training clips are in the test list or share a file with it: refuse the import, drop them, or keep them.",
        ),
        click.option("--force", is_flag=True, help="Replace the dataset if it exists with other clips or boxes."),
        preset_option,
        click.option("--check-only", is_flag=True, help="Check the lists and boxes without media; write nothing."),
        click.option(
            "--report",
            "report_file",
            type=PATH,
            help="Write all findings to this JSON file, even if the import is refused or only checked.",
        ),
    ]
    if layouts:
        choice = click.Choice(["auto", *layouts])
        text = "Folder layout of the media; auto detects it."
        options.append(click.option("--layout", type=choice, default="auto", show_default=True, help=text))
    return options


def _show(report: ImportReport, options: ImportOptions) -> None:
    from pipeline.common.errors import ManifestError
    from pipeline.datasets.importers.leaks import leak_message

    for line in report.lines():
        echo(line)
    if options.check_only and options.leaks == "refuse" and report.leaks:
        raise ManifestError(leak_message(report))
    echo("checked; nothing was written" if options.check_only else _outcome(options.name, unchanged=report.unchanged))


def _outcome(name: str, *, unchanged: bool) -> str:
    folder = manifest_folder(Path(), name)
    return f"unchanged, kept {folder}" if unchanged else f"wrote {folder}"


train_size_option = click.option("--train-size", type=click.IntRange(min=1), help="Number of training clips to sample.")
silent_option = click.option(
    "--silent",
    type=PATH,
    help="CSV of silent clips for the split test_silent. Columns video,audio: ids of the clips that provide the frame and the audio.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed for random sampling."
)
scheduler_option = click.option(
    "--scheduler",
    envvar="DASK_SCHEDULER_ADDRESS",
    help="Address of a Dask scheduler. Without it, a local cluster is started.",
)
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), envvar="SOUNDSPOT_WORKERS", help="Local processes. Default: all cores."
)


@imports.command()
@click.option("--name", default="demo", show_default=True, help="Name of the dataset in data_manifests/.")
@seed_option
@click.option("--train", type=click.IntRange(min=1), default=3000, show_default=True, help="Training clips.")
@click.option("--validation", type=click.IntRange(min=0), default=500, show_default=True, help="Validation clips.")
@click.option("--test", type=click.IntRange(min=1), default=1000, show_default=True, help="Test clips.")
@click.option("--force", is_flag=True, help="Replace the dataset if it exists with other clips or boxes.")
@preset_option
def demo(name: str, seed: int, train: int, validation: int, test: int, force: bool, preset: str | None) -> None:
    """Rendered videos of sounding and silent objects. No download needed; `dvc repro prepare` renders them.

    Example: soundspot import demo --name tiny --train 48 --validation 8 --test 16
    """
    from pipeline.common.files import write_text
    from pipeline.datasets.demo.dataset import write_manifest
    from pipeline.datasets.importers.params_block import check_preset, params_with_block
    from pipeline.datasets.importers.write import check_name
    from pipeline.datasets.replace import replace_folder

    folder = check_name(name, Path.cwd())
    if preset:
        check_preset(Path(PARAMS_FILE), preset)
    params, hint = params_with_block(Path(PARAMS_FILE), name, preset=preset or "demo")
    sizes = {"train": train, "validation": validation, "test": test}
    write = functools.partial(
        write_manifest, seed=seed, train=train, validation=validation, test=test, media_root=f"data/{name}/media"
    )
    replaced = replace_folder(folder, write, force=force)
    if params:
        write_text(Path(PARAMS_FILE), params)
    echo(f"{name}: {', '.join(f'{split} {count}' for split, count in sizes.items())} clips\n{name}: {hint}")
    echo(_outcome(name, unchanged=not replaced))


@imports.command("soundnet-flickr")
@importer("soundnet_flickr", layouts=("official", "flat"))
@click.option("--train", "train_list", type=PATH, required=True, help="Ids to train on, one per line.")
@click.option("--boxes", type=PATH, required=True, help="Folder of XML files, or boxes as .json or .pkl.")
@click.option("--test", "test_list", type=PATH, help="Ids to test on. Default: all with boxes.")
@train_size_option
@click.option(
    "--validation-size",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of clips to hold out, out of those with boxes that are not test clips.",
)
@silent_option
@seed_option
def soundnet_flickr(options: ImportOptions, **rest: Any) -> ImportReport:
    """SoundNet-Flickr. Media: Data/<last digit>/<id>.jpg and .wav (or .mp4), or frames/ and audio/.

    \b
    Example:
      soundspot import soundnet-flickr --media /data/flickr --train flickr_10k.txt
        --test flickr_test.csv --boxes Annotations --leaks drop
    """
    from pipeline.datasets.importers.soundnet_flickr import import_soundnet_flickr

    return import_soundnet_flickr(options, **rest)


@imports.command()
@importer("vggss", layouts=("video", "flat"))
@click.option("--annotations", type=PATH, required=True, help="The official vggss.json.")
@click.option("--test", "test_list", type=PATH, help="Ids to test on. Default: all annotated ones.")
@click.option("--train", "train_list", type=PATH, help="Ids to train on, or VGGSound's own CSV.")
@train_size_option
@silent_option
@seed_option
def vggss(options: ImportOptions, **rest: Any) -> ImportReport:
    """VGG-SS. Media: video/<ytid>_<start>.mp4, or frames/ and audio/.

    \b
    Example, without any media:
      soundspot import vggss --annotations vggss.json --check-only
    """
    from pipeline.datasets.importers.vggss import import_vggss

    if rest["train_size"] is not None and rest["train_list"] is None:
        raise click.UsageError("--train-size requires --train; pass a training list, or leave --train-size out")
    return import_vggss(options, **rest)


@imports.command()
@importer("is3", layouts=("published", "flat"))
@click.option("--annotations", type=PATH, required=True, help="The JSON with boxes.")
@click.option("--train", "train_clips", type=PATH, help="A clip list to train on, relative to the same media root.")
def is3(options: ImportOptions, **rest: Any) -> ImportReport:
    """IS3, a test set of synthetic pairs. Media: visual_frames/ and audio_wav/, or frames/ and audio/.

    \b
    Example:
      soundspot import is3 --annotations synthetic3240_bbox.json --media /data/is3
    """
    from pipeline.datasets.importers.is3 import import_is3

    return import_is3(options, **rest)


@imports.command()
@importer(None)
@click.option("--clips", "clip_list", type=PATH, help="A clip list. Default: every video in the folder.")
@click.option("--test", "test_list", type=PATH, help="Ids of the test clips, or paths of videos in the folder.")
@click.option("--boxes", type=PATH, help="Boxes of the test clips, in the columns of test_boxes.csv.")
@click.option(
    "--test-share",
    type=FiniteRange(0, 1),
    default=0.2,
    show_default=True,
    help="Fraction of the files to test on, if neither a test list nor boxes are given.",
)
@seed_option
def folder(options: ImportOptions, **rest: Any) -> ImportReport:
    """Your own videos: every video in the folder --media and its subfolders.

    \b
    Example:
      soundspot import folder --name street --media /data/street
    """
    from pipeline.datasets.importers.folder import import_folder

    return import_folder(options, **rest)
