"""Stage `evaluate@NAME-VARIANT`: compute and score the response maps of the scored split."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.console import run_command
from stages.options import FOLDER, device_option, manifest_option, params_option


@click.command()
@manifest_option
@click.option("--shards", type=FOLDER, required=True, help="Shards of the scored split.")
@click.option("--features", type=FOLDER, help="Folder of its features. Without it, they are computed from the frames.")
@click.option(
    "--clips", type=FOLDER, help="clips.csv of the training data, to exclude trained clips and to name clusters."
)
@click.option("--run", "run_folder", type=FOLDER, required=True, help="Folder of the trained run.")
@click.option("--baselines", type=FOLDER, required=True, help="baselines.json, printed next to the scores.")
@click.option("--maps", type=FOLDER, required=True, help="Folder for the response maps.")
@click.option("--out", type=FOLDER, required=True, help="Folder for the scores and the success curve.")
@params_option
@device_option
def main(
    manifest: Path,
    shards: Path,
    features: Path | None,
    clips: Path | None,
    run_folder: Path,
    baselines: Path,
    maps: Path,
    out: Path,
    params_path: Path,
    device: str,
) -> None:
    """Score one trained method.

    Example: python -m stages.evaluate --manifest data_manifests/demo --shards data/demo/shards/test
    --features data/demo/features/test --clips data/demo/clips.csv --run runs/demo/iterative --baselines results/demo/baselines.json --maps results/demo/maps/iterative
    --out results/demo/iterative
    """
    from pipeline.common.config import load_card, load_params
    from pipeline.evaluation.evaluate import evaluate
    from pipeline.features.reader import open_clips
    from pipeline.shards.reader import ShardSet

    params, card = load_params(params_path), load_card(manifest)
    clips_to_score = ShardSet.open(shards)
    if features is not None:
        clips_to_score = open_clips(clips_to_score, features, params.training[params.dataset])
    evaluate(
        run_folder,
        clips_to_score,
        manifest,
        out,
        maps_folder=maps,
        baselines=baselines,
        split=params.score_split,
        evaluation=card.evaluation,
        seeds=params.seeds,
        clips=clips,
        leaks_allowed=card.leaks_allowed,
        device=device,
    )


if __name__ == "__main__":
    run_command(main)
