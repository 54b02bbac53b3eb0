"""Stage `features@NAME-SPLIT`: compute the features of frozen backbones, or none if the visual backbone is trained."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.console import run_command
from stages.options import (
    FOLDER,
    device_option,
    fresh_option,
    params_option,
    scheduler_option,
    verify_option,
    workers_option,
)


@click.command()
@click.option("--shards", type=FOLDER, required=True, help="Shards of the split.")
@click.option("--out", type=FOLDER, required=True, help="Folder for the features, named like the split.")
@params_option
@scheduler_option
@workers_option
@device_option
@fresh_option
@verify_option
def main(
    shards: Path,
    out: Path,
    params_path: Path,
    scheduler: str | None,
    workers: int | None,
    device: str,
    fresh: bool,
    verify: bool,
) -> None:
    """Compute the features of one split.

    Example: python -m stages.features --shards data/demo/shards/test --out data/demo/features/test
    """
    from pipeline.common.config import load_params

    params = load_params(params_path)
    settings = params.training[params.dataset]
    if not settings.stored_features:
        # Most datasets. Without torch, which takes longer to load than all else here.
        from pipeline.features.nothing import store_nothing

        store_nothing(out)
        return

    from pipeline.common.record import restore_output
    from pipeline.features.compute import compute_features

    if not fresh:
        restore_output(out)
    compute_features(
        shards,
        out,
        settings=settings,
        scheduler=scheduler,
        workers=workers,
        device=device,
        fresh=fresh,
        verify=verify,
    )


if __name__ == "__main__":
    run_command(main)
