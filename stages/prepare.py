"""Stage `prepare`: render the demo's media, or check that a dataset's media exist."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.console import echo, note, run_command
from stages.options import FOLDER, manifest_option, params_option, scheduler_option, workers_option


@click.command()
@manifest_option
@click.option(
    "--out", type=FOLDER, required=True, help="Folder for clips.csv, missing.csv, coverage.json and fingerprints.json."
)
@params_option
@scheduler_option
@workers_option
def main(manifest: Path, out: Path, params_path: Path, scheduler: str | None, workers: int | None) -> None:
    """List the clips whose media exist.

    Example: python -m stages.prepare --manifest data_manifests/demo --out data/demo
    """
    from pipeline.common.config import load_card, load_params
    from pipeline.datasets.prepare import prepare_dataset
    from pipeline.manifests.boxes import boxes_path
    from pipeline.manifests.prepared import resolve_media_root

    media_root = resolve_media_root(load_card(manifest), Path.cwd(), manifest.name)
    # No settings affect the output, so none are parameters in dvc.yaml. They decide only what is refused early.
    params = load_params(params_path)
    coverage = prepare_dataset(
        manifest,
        out,
        media_root=media_root,
        scheduler=scheduler,
        workers=workers,
        score_split=params.score_split,
        must_be_scored=manifest.name in params.cross_datasets,
        batch_size=params.training[params.dataset].batch_size if manifest.name == params.dataset else None,
    )
    echo(coverage.describe())
    if manifest.name == params.dataset and not boxes_path(manifest, params.score_split).is_file():
        note(f"no boxes for the split {params.score_split!r}: nothing can be scored, but `dvc repro train` works")


if __name__ == "__main__":
    run_command(main)
