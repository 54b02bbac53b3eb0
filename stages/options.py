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
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="SOUNDSPOT_DEVICE",
    help="auto, cpu, cuda or cuda:N. Machine-specific, so not in params.yaml.",
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
    help="Verify the checksums of finished files instead of their sizes, times and ends. Reads all of them.",
)
