"""Stage `initialize`: plain contrastive learning (Eq. 3), the starting point of every method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.common.console import run_command
from stages.options import FOLDER, device_option, features_option, params_option
from stages.training_options import execution_options

if TYPE_CHECKING:
    from pipeline.training.train import Execution


@click.command()
@click.option("--shards", type=FOLDER, required=True, help="Shards of the training split.")
@features_option
@click.option("--out", type=FOLDER, required=True, help="Folder of the run.")
@params_option
@device_option
@execution_options
def main(
    shards: Path,
    features: Path,
    out: Path,
    params_path: Path,
    device: str,
    execution: Execution,
) -> None:
    """Train the initial model.

    Example: python -m stages.initialize --shards data/demo/shards/train --features data/demo/features/train
    --out runs/demo/initialize
    """
    from pipeline.common.config import load_params
    from pipeline.common.record import restore_output
    from pipeline.features.reader import open_clips
    from pipeline.methods.build import check_methods
    from pipeline.model.ranks import is_first, joined
    from pipeline.shards.reader import ShardSet
    from pipeline.training.train import initialize

    with joined(device) as own_device:
        if not execution.fresh and is_first():
            restore_output(out)
        params = load_params(params_path)
        settings = params.training[params.dataset]
        check_methods(settings)
        initialize(
            open_clips(ShardSet.open(shards), features, settings),
            out,
            settings=settings,
            seeds=params.seeds,
            device=own_device,
            execution=execution,
        )


if __name__ == "__main__":
    run_command(main)
