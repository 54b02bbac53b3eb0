"""Stage `report`: write the comparison table, the figures and the HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.console import run_command
from stages.options import FOLDER, device_option, manifest_option, params_option


@click.command()
@manifest_option
@click.option("--clips", type=FOLDER, required=True, help="clips.csv written by the stage prepare, for its labels.")
@click.option("--shards", type=FOLDER, required=True, help="Folder with the shards of all splits.")
@click.option("--features", type=FOLDER, required=True, help="Folder with the features of all splits.")
@click.option("--runs", type=FOLDER, required=True, help="Folder with the runs of all variants.")
@click.option("--results", type=FOLDER, required=True, help="Folder with the results of all variants.")
@click.option("--out", type=FOLDER, required=True, help="Folder for the report.")
@params_option
@device_option
def main(
    manifest: Path,
    clips: Path,
    shards: Path,
    features: Path,
    runs: Path,
    results: Path,
    out: Path,
    params_path: Path,
    device: str,
) -> None:
    """Write the report.

    Example: python -m stages.report --manifest data_manifests/demo --clips data/demo/clips.csv --shards data/demo/shards
    --features data/demo/features --runs runs/demo --results results/demo --out results/demo/report
    """
    from pipeline.common.config import load_card, load_params
    from pipeline.features.reader import open_clips
    from pipeline.manifests.prepared import resolve_media_root
    from pipeline.report.report import write_report
    from pipeline.report.source import Source
    from pipeline.shards.reader import ShardSet

    params, card = load_params(params_path), load_card(manifest)
    scored = ShardSet.open(shards / params.score_split)
    source = Source(
        results=results,
        runs=runs,
        folder=out,
        train_shards=ShardSet.open(shards / "train"),
        scored_shards=scored,
        scored_input=open_clips(scored, features / params.score_split, params.training[params.dataset]),
        manifest=manifest,
        clips=clips,
        split=params.score_split,
        variants=params.variants,
        seeds=params.seeds,
        card=card,
        media_root=resolve_media_root(card, Path.cwd(), manifest.name),
        device=device,
    )
    write_report(source)


if __name__ == "__main__":
    run_command(main)
