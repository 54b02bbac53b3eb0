"""`soundspot localize`: heat maps over one's own videos and pictures."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import PATH, FiniteRange, target_options
from pipeline.common.console import is_verbose, note

if TYPE_CHECKING:
    from pipeline.apps.localize.jobs import Job
    from pipeline.apps.localize.localizer import Localizer
    from pipeline.apps.localize.video.overlay_settings import OverlaySettings

_SURROUNDINGS = {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_LONGEST_MESSAGE = 200


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=PATH, metavar="INPUT...")
@click.option("-o", "--output", "folder", required=True, type=PATH, help="Folder for what comes out; made if absent.")
@click.option(
    "--model",
    required=True,
    help="A model.pt, which needs no settings file; or a run's folder, or the name of a variant.",
)
@click.option("--audio", type=PATH, help="The sound of a picture. Default: a sound file of the same name beside it.")
@click.option(
    "--json", "as_json", is_flag=True, help="Write the boxes of the sounding regions beside each output as well."
)
@click.option("--overwrite", is_flag=True, help="Make outputs anew that are there already.")
@click.option(
    "--maps-per-second",
    type=FiniteRange(min=0),
    default=10.0,
    show_default=True,
    help="At most so many maps; pictures between show the last one. 0 is one for every picture.",
)
@click.option(
    "--smooth",
    type=FiniteRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Average the maps of the last SECONDS. It hides how much the model wavers, and lags behind by half of that.",
)
@click.option(
    "--silence-dbfs",
    type=FiniteRange(max=0),
    default=-66.0,
    show_default=True,
    help="A window of sound without a louder sample, a constant offset taken off, is silent, and nothing is painted.",
)
@click.option(
    "--miss-rate",
    type=FiniteRange(0, 1),
    default=0.05,
    show_default=True,
    help="Paint nothing where the response is weaker than for all but this share of the calibration clips; 0 paints always.",
)
@click.option("--calibration", type=PATH, help="Default: calibration.json beside the model or in results/, if any.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Maps computed at once.")
@click.option(
    "--crf", type=click.IntRange(0, 51), default=18, show_default=True, help="Quality of the video; lower is better."
)
@click.option(
    "--time-limit",
    type=FiniteRange(min=0, min_open=True),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="That one file may take.",
)
@click.option(
    "--device", default="auto", show_default=True, envvar="SOUNDSPOT_DEVICE", help="auto, cpu, cuda or cuda:N."
)
@target_options
@click.pass_context
def localize(
    ctx: click.Context,
    inputs: tuple[Path, ...],
    folder: Path,
    model: str,
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
    """Show where the sound comes from, in your own videos and pictures.

    An INPUT is a video, a picture (with a sound file of the same name beside it, or --audio), or a folder of such. A video
    becomes the same video with a heat map over it and its sound kept, a picture a PNG and an NPZ with the response map.
    Finished outputs are skipped, so a stopped run goes on where it stood.

    A file that cannot be localized is named with its reason, and the rest goes on. The exit code is 0 if all are done and 1 if
    some failed.

    \b
    Example:
      soundspot localize holiday.mp4 -o localized --model runs/demo/iterative/model.pt
      soundspot localize bird.jpg --audio bird.wav -o localized --model runs/demo/iterative/model.pt
      soundspot localize videos/ -o localized --model runs/demo/iterative/model.pt --json
    """
    from tqdm import tqdm

    from pipeline.apps.localize.jobs import plan_jobs
    from pipeline.apps.localize.localizer import Localizer
    from pipeline.apps.localize.video.overlay_settings import OverlaySettings
    from pipeline.cli.targets import resolve_model
    from pipeline.common.console import progress_disabled
    from pipeline.common.errors import LocalizationError
    from pipeline.common.files import locked

    settings = OverlaySettings(
        maps_per_second=maps_per_second, batch_size=batch_size, smooth_s=smooth, crf=crf, time_limit_s=time_limit
    )
    path = resolve_model(model, dataset=dataset, seed=seed, params_path=params_path)
    localizer = Localizer.load(
        path, calibration=calibration, device=device, silence_dbfs=silence_dbfs, miss_rate=miss_rate
    )
    jobs = plan_jobs(inputs, folder, sound=audio, as_json=as_json)
    _tell_calibration(localizer)
    counts = {"done": 0, "kept": 0, "failed": 0}
    with (
        locked(folder, LocalizationError, inside=True),
        tqdm(total=len(jobs), unit="file", leave=False, disable=progress_disabled()) as bar,
    ):
        for job in jobs:
            bar.set_description(job.name.name[-30:])
            outcome = _outcome(job, folder, localizer, settings, as_json, overwrite, bar)
            counts[outcome] += 1
            bar.update()
    words = {"done": "localized", "kept": "there already", "failed": "failed"}
    click.echo(", ".join(f"{count} {words[name]}" for name, count in counts.items() if count) or "nothing to do")
    ctx.exit(1 if counts["failed"] else 0)


def _outcome(
    job: Job, folder: Path, localizer: Localizer, settings: OverlaySettings, as_json: bool, overwrite: bool, bar: Any
) -> str:
    """Do one job and print what became of it: "done", "kept" or "failed"."""
    from pipeline.apps.localize.run import run_job
    from pipeline.common.errors import SoundspotError

    def tell(time_s: float, total_s: float | None) -> None:
        bar.set_postfix_str(progress_text(time_s, total_s))

    bar.set_postfix_str("", refresh=False)
    try:
        text = run_job(job, folder, localizer, settings, as_json=as_json, overwrite=overwrite, tell=tell)
    except SoundspotError as error:
        return _failed(bar, str(error))
    except MemoryError:
        return _failed(bar, f"{job.source}: out of memory; scale it down or lower --batch-size")
    except OSError as error:
        if error.errno in _SURROUNDINGS:
            raise
        return _failed(bar, f"{job.source}: {error.strerror or error}")
    except Exception as error:
        # One file that a decoder trips over must not end the rest.
        if is_verbose():
            _print(bar, traceback.format_exc().rstrip(), err=True)
        return _failed(bar, f"{job.source}: internal error: {type(error).__name__}: {str(error)[:_LONGEST_MESSAGE]}")
    target = job.outputs(folder, as_json=False)[-1]
    if text is None:
        return "kept"
    _print(bar, f"{job.source} -> {target}: {text}")
    return "done"


def progress_text(time_s: float, total_s: float | None) -> str:
    """Return how far a video is; a container that claims too little is not believed, nor one that claims nothing."""
    of = "" if total_s is None or total_s < time_s else f" of {total_s:.0f}"
    return f"{time_s:.0f}{of} s"


def _failed(bar: Any, message: str) -> str:
    _print(bar, f"failed: {' '.join(message.split())}", err=True)
    return "failed"


def _print(bar: Any, line: str, *, err: bool = False) -> None:
    with bar.external_write_mode():
        click.echo(line, err=err)


def _tell_calibration(localizer: Localizer) -> None:
    from pipeline.evaluation.calibration import MAKE_ONE

    calibration, rate = localizer.calibration, localizer.miss_rate
    if calibration is None:
        note(f"no calibration of this model: only silence is told from sound; {MAKE_ONE}")
    elif rate:
        note(calibration.describe(rate))
