"""`soundspot serve`: a local web page where you can drop a video."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from pipeline.cli.localize import report_calibration
from pipeline.cli.options import FiniteRange, device_option, model_option, target_options
from pipeline.common.console import echo, note


@click.command()
@model_option
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: the first free port from 7860 on.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the default web browser.")
@click.option(
    "--max-size",
    type=FiniteRange(min=0, min_open=True),
    default=200.0,
    show_default=True,
    metavar="MB",
    help="Largest file that the page accepts.",
)
@click.option(
    "--max-duration",
    type=FiniteRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest video that the page accepts.",
)
@click.option(
    "--time-limit",
    type=FiniteRange(min=0, min_open=True),
    default=900.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for one upload.",
)
@device_option
@target_options
def serve(
    model: str | None,
    port: int,
    open_browser: bool,
    max_size: float,
    max_duration: float,
    time_limit: float,
    device: str,
    dataset: str | None,
    seed: int | None,
    params_path: Path,
) -> None:
    """Serve a page: drop a video, or an image and its audio, and see where the sound comes from.

    The page shows the video with the heat map, the response over time, and the boxes as JSON. Only this machine can reach it
    (127.0.0.1), and nothing is loaded from the network. Uploads are removed when the server stops. Stop it with Ctrl-C.

    \b
    Example:
      soundspot serve
      soundspot serve --model runs/demo/iterative/model.pt --open
    """
    from pipeline.apps.localize.localizer import Localizer
    from pipeline.apps.localize.serve.page import served
    from pipeline.apps.localize.serve.uploads import Answer, Limits, localize_upload
    from pipeline.apps.localize.video.overlay import OnProgress
    from pipeline.apps.localize.video.overlay_settings import OverlaySettings
    from pipeline.cli.targets import find_model

    path = find_model(model, dataset=dataset, seed=seed, params_path=params_path)
    localizer = Localizer.load(path, device=device)
    report_calibration(localizer)
    settings, limits = OverlaySettings(time_limit_s=time_limit), Limits(max_size, max_duration)

    def localize(files: list[Path], folder: Path, on_progress: OnProgress) -> Answer:
        return localize_upload(files, folder, localizer, settings, limits, on_progress=on_progress)

    # A server that is terminated, or whose terminal is closed, removes the uploads too.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        with served(localize, limits, model=str(path), port=port, open_browser=open_browser) as address:
            echo(address)
            note("open this address in a browser; stop with Ctrl-C")
            _wait()
    except KeyboardInterrupt:
        note("stopped")


def _wait() -> None:
    threading.Event().wait()
