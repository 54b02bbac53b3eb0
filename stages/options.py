"""Options shared by several stages."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.project import PARAMS_FILE

FOLDER = click.Path(path_type=Path)

params_option = click.option(
    "--params", "params_path", type=FOLDER, default=PARAMS_FILE, show_default=True, help="Settings file."
)
manifest_option = click.option(
    "--manifest", type=FOLDER, required=True, help="Folder with the dataset's card and clip lists."
)
features_option = click.option(
    "--features", type=FOLDER, required=True, help="Folder of the split's features, written by the stage features."
)
scheduler_option = click.option(
    "--scheduler",
    envvar="DASK_SCHEDULER_ADDRESS",
    help="Address of a Dask scheduler, such as tcp://10.0.0.5:8786. Without it, a local cluster is started.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    envvar="SOUNDSPOT_WORKERS",
    help="Processes of the local cluster. Default: one per core.",
)
parallel_option = click.option(
    "--seeds-at-once",
    "n_parallel",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    envvar="SOUNDSPOT_SEEDS_AT_ONCE",
    help="Number of seeds trained in parallel on a CPU; the threads are divided among them.",
)
processes_option = click.option(
    "--processes",
    "n_processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    envvar="SOUNDSPOT_PROCESSES",
    help="Number of processes that train together, one for each GPU. The result is that of one process, up to rounding.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="SOUNDSPOT_DEVICE",
    help="auto, cpu, cuda or cuda:N. Machine-specific, so not in params.yaml.",
)
compiled_option = click.option(
    "--compile/--no-compile",
    "compiled",
    default=False,
    show_default=True,
    envvar="SOUNDSPOT_COMPILE",
    help="Compile the backbones with torch.compile.",
)
deterministic_option = click.option(
    "--deterministic/--fastest",
    default=True,
    show_default=True,
    envvar="SOUNDSPOT_DETERMINISTIC",
    help="Deterministic algorithms on CUDA, or the fastest ones. On a CPU, results are always deterministic.",
)
live_option = click.option(
    "--live",
    type=click.Choice(["auto", "dvclive", "tensorboard", "off"]),
    default="auto",
    show_default=True,
    envvar="SOUNDSPOT_LIVE",
    help="Log of the steps, in the folder live. auto: DVCLive, if it is installed.",
)
fresh_option = click.option(
    "--fresh",
    is_flag=True,
    envvar="SOUNDSPOT_FRESH",
    help="Run again even if a finished or interrupted result of the same settings, data and code exists.",
)
verify_option = click.option(
    "--verify",
    is_flag=True,
    envvar="SOUNDSPOT_VERIFY",
    help="Verify the checksums of finished shards instead of their sizes, times and ends. Reads all of them.",
)
