"""`soundspot localize`: heat maps over your own videos and images."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import PATH, FiniteRange, device_option, model_option, target_options
from pipeline.common.console import echo, is_verbose, note
from pipeline.common.text_table import printable

if TYPE_CHECKING:
    from pipeline.apps.localize.jobs import Job
    from pipeline.apps.localize.localizer import Localizer
    from pipeline.apps.localize.video.overlay_settings import OverlaySettings

# These affect every file (permissions, disk full), so they end the run instead of failing one file.
_ENVIRONMENT_ERRNOS = {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_MAX_MESSAGE_LENGTH = 200


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=PATH, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    "folder",
    type=PATH,
    default="localized",
    show_default=True,
    help="Output folder; created if absent.",
)
@model_option
@click.option(
    "--audio", type=PATH, help="Audio file for an image. Default: an audio file with the same name next to it."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Also write the boxes of the sounding regions next to each output."
)
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
@click.option(
    "--maps-per-second",
    type=FiniteRange(min=0),
    default=10.0,
    show_default=True,
    help="Maximum map rate; frames in between show the latest map. 0 computes a map for every frame.",
)
@click.option(
    "--smooth",
    type=FiniteRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Average the maps of the last SECONDS. This hides how much the model fluctuates and adds a lag of half of SECONDS.",
)
@click.option(
    "--silence-dbfs",
    type=FiniteRange(max=0),
    default=-66.0,
    show_default=True,
    help="Peak level up to which an audio window counts as silent and no heat map is drawn. A constant offset is removed first.",
)
@click.option(
    "--miss-rate",
    type=FiniteRange(0, 1),
    default=0.05,
    show_default=True,
    help="Report 'source not found' for responses in the lowest fraction of the calibration clips; 0 disables it.",
)
@click.option("--calibration", type=PATH, help="Default: calibration.json next to the model or in results/, if any.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Maps per batch.")
@click.option("--crf", type=click.IntRange(0, 51), default=18, show_default=True, help="x264 quality; lower is better.")
@click.option(
    "--time-limit",
    type=FiniteRange(min=0, min_open=True),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for one file.",
)
@device_option
@target_options
@click.pass_context
def localize(
    ctx: click.Context,
    inputs: tuple[Path, ...],
    folder: Path,
    model: str | None,
    audio: Path | None,
    as_json: bool,
    overwrite: bool,
    maps_per_second: float,
    smooth: float,
    silence_dbfs: float,
    miss_rate: float,
    calibration: Path | None,
    batch_size: int,
    crf: int,
    time_limit: float,
    device: str,
    dataset: str | None,
    seed: int | None,
    params_path: Path,
) -> None:
    """Show where the sound comes from in your own videos and images.

    An INPUT is a video, an image (with an audio file of the same name next to it, or --audio), or a folder of these. The
    output for a video is the same video with a heat map and its original audio; for an image, a PNG and an NPZ with the
    response map. Existing outputs are skipped, so an interrupted run can be resumed.

    A file that is missing or cannot be localized is reported with the reason, and processing continues. The exit code is 0
    if all files succeeded and 1 if any failed.

    \b
    Example:
      soundspot localize holiday.mp4
      soundspot localize bird.jpg --audio bird.wav --model runs/demo/iterative/model.pt
      soundspot localize videos/ -o localized/all --model iterative --dataset demo --json
    """
    from tqdm import tqdm

    from pipeline.apps.localize.jobs import plan_jobs
    from pipeline.apps.localize.localizer import Localizer
    from pipeline.apps.localize.video.overlay_settings import OverlaySettings
    from pipeline.cli.targets import find_model
    from pipeline.common.console import progress_disabled
    from pipeline.common.errors import LocalizationError
    from pipeline.common.files import DAY_S, locked, remove_leftovers

    settings = OverlaySettings(
        maps_per_second=maps_per_second, batch_size=batch_size, smooth_s=smooth, crf=crf, time_limit_s=time_limit
    )
    path = find_model(model, dataset=dataset, seed=seed, params_path=params_path)
    localizer = Localizer.load(
        path, calibration=calibration, device=device, silence_dbfs=silence_dbfs, miss_rate=miss_rate
    )
    jobs = plan_jobs(inputs, folder, audio=audio, as_json=as_json)
    report_calibration(localizer)
    counts = {"done": 0, "kept": 0, "failed": 0}
    with (
        locked(folder, LocalizationError, inside=True),
        tqdm(total=len(jobs), unit="file", leave=False, disable=progress_disabled()) as bar,
    ):
        remove_leftovers(folder)
        # The lock does not cover subfolders.
        below = {path.parent for job in jobs for path in job.outputs(folder, as_json=as_json)} - {folder}
        remove_leftovers(*below, min_age_s=DAY_S)
        for job in jobs:
            bar.set_description(printable(job.name.name[-30:]))
            outcome = _outcome(job, folder, localizer, settings, as_json, overwrite, bar)
            counts[outcome] += 1
            bar.update()
    words = {"done": "localized", "kept": "already done", "failed": "failed"}
    echo(", ".join(f"{count} {words[name]}" for name, count in counts.items() if count) or "nothing to do")
    ctx.exit(1 if counts["failed"] else 0)


def _outcome(
    job: Job, folder: Path, localizer: Localizer, settings: OverlaySettings, as_json: bool, overwrite: bool, bar: Any
) -> str:
    """Run one job, print its result, and return "done", "kept" or "failed"."""
    from pipeline.apps.localize.run import run_job
    from pipeline.common.errors import SoundspotError

    def on_progress(time_s: float, total_s: float | None) -> None:
        bar.set_postfix_str(progress_text(time_s, total_s))

    bar.set_postfix_str("", refresh=False)
    try:
        text = run_job(job, folder, localizer, settings, as_json=as_json, overwrite=overwrite, on_progress=on_progress)
    except SoundspotError as error:
        return _failed(bar, str(error))
    except MemoryError:
        return _failed(bar, f"{job.source}: out of memory; scale it down or lower --batch-size")
    except OSError as error:
        if error.errno in _ENVIRONMENT_ERRNOS:
            raise
        return _failed(bar, f"{job.source}: {error.strerror or error}")
    except Exception as error:
        # A single file that breaks a decoder must not end the run.
        if is_verbose():
            _print(bar, traceback.format_exc().rstrip(), err=True)
        return _failed(bar, f"{job.source}: internal error: {type(error).__name__}: {str(error)[:_MAX_MESSAGE_LENGTH]}")
    target = job.outputs(folder, as_json=False)[-1]
    if text is None:
        return "kept"
    _print(bar, printable(f"{job.source} -> {target}: {text}"))
    return "done"


def progress_text(time_s: float, total_s: float | None) -> str:
    """Format the progress of a video. The duration is left out if the container does not state it or states too little."""
    of = "" if total_s is None or total_s < time_s else f" of {total_s:.0f}"
    return f"{time_s:.0f}{of} s"


def _failed(bar: Any, message: str) -> str:
    _print(bar, printable(f"failed: {' '.join(message.split())}"), err=True)
    return "failed"


def _print(bar: Any, line: str, *, err: bool = False) -> None:
    with bar.external_write_mode():
        echo(line, err=err)


def report_calibration(localizer: Localizer) -> None:
    """Print how often "not found" is reported, or that it never is."""
    from pipeline.evaluation.calibration import MAKE_ONE

    calibration, rate = localizer.calibration, localizer.miss_rate
    if calibration is None:
        note(f"no calibration for this model, so 'source not found' is never reported; {MAKE_ONE}")
    elif rate:
        note(calibration.describe(rate))
