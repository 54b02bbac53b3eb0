"""Stage `prepare`: render the demo's media, or check that a dataset's media exist."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.config import load_card
from pipeline.common.console import run_command
from pipeline.datasets.prepare import prepare_dataset
from pipeline.manifests.prepared import resolve_media_root
from stages.options import FOLDER, manifest_option, scheduler_option, workers_option


@click.command()
@manifest_option
@click.option(
    "--out", type=FOLDER, required=True, help="Folder for clips.csv, missing.csv, coverage.json and fingerprints.json."
)
@scheduler_option
@workers_option
def main(manifest: Path, out: Path, scheduler: str | None, workers: int | None) -> None:
    """List the clips whose media exist.

    Example: python -m stages.prepare --manifest data_manifests/demo --out data/demo
    """
    media_root = resolve_media_root(load_card(manifest), Path.cwd(), manifest.name)
    coverage = prepare_dataset(manifest, out, media_root=media_root, scheduler=scheduler, workers=workers)
    click.echo(coverage.describe())


if __name__ == "__main__":
    run_command(main)
