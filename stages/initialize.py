"""Stage `initialize`: plain contrastive learning, Eq. 3, the common start of every method."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.config import load_params
from pipeline.common.console import run_command
from pipeline.methods import check_methods
from pipeline.shards.reader import ShardSet
from pipeline.training.loop import initialize
from stages.options import FOLDER, at_once_option, device_option, params_option


@click.command()
@click.option("--shards", type=FOLDER, required=True, help="Shards of the training split.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the run.")
@params_option
@device_option
@at_once_option
def main(shards: Path, out: Path, params_path: Path, device: str, at_once: int) -> None:
    """Train the initial model.

    Example: python -m stages.initialize --shards data/demo/shards/train --out runs/demo/initialize
    """
    params = load_params(params_path)
    settings = params.training[params.dataset]
    check_methods(settings)
    initialize(ShardSet.open(shards), out, settings=settings, seeds=params.seeds, device=device, at_once=at_once)


if __name__ == "__main__":
    run_command(main)
