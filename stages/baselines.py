"""Stage `baselines`: score content-free baselines under the same protocols as the models."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.console import run_command
from stages.options import FOLDER, manifest_option, params_option


@click.command()
@manifest_option
@click.option("--shards", type=FOLDER, required=True, help="Shards of the scored split.")
@click.option("--out", type=FOLDER, required=True, help="Output file, baselines.json.")
@params_option
def main(manifest: Path, shards: Path, out: Path, params_path: Path) -> None:
    """Score the content-free baselines.

    Example: python -m stages.baselines --manifest data_manifests/demo --shards data/demo/shards/test
    --out results/demo/baselines.json
    """
    from pipeline.common.config import load_card, load_params
    from pipeline.scoring.baselines import evaluate_content_free
    from pipeline.shards.reader import ShardSet

    evaluate_content_free(
        ShardSet.open(shards),
        manifest,
        out,
        split=load_params(params_path).score_split,
        evaluation=load_card(manifest).evaluation,
    )


if __name__ == "__main__":
    run_command(main)
