"""`soundspot calibrate`: measure a model's usual response strength, without boxes."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import PATH, device_option, target_options
from pipeline.common.console import echo, note


@click.command()
@click.argument("target", metavar="MODEL|VARIANT")
@click.option(
    "--shards", "folder", type=PATH, help="Shards to measure on. Default: those of score_split in data/DATASET."
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="Output file. Default: where evaluate writes it, or next to a model outside a project.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@target_options
def calibrate(
    target: str,
    folder: Path | None,
    output: Path | None,
    device: str,
    as_json: bool,
    dataset: str | None,
    seed: int | None,
    params_path: Path,
) -> None:
    """Measure a model's response strength, so that `localize` can report "source not found". Requires no boxes.

    Frames are paired with their own audio, with another clip's, with hiss and with mains hum. `dvc repro evaluate` does the
    same; this command is for data without boxes, which cannot be evaluated. Use clips that the model was not trained on.

    \b
    Example:
      dvc repro extract@demo-test
      soundspot calibrate iterative
      soundspot calibrate runs/demo/iterative/model.pt --shards data/demo/shards/test -o usual.json
    """
    import json
    import os
    from dataclasses import asdict

    from pipeline.cli.targets import resolve_model
    from pipeline.common.config import load_params
    from pipeline.common.errors import EvaluationError, ShardError
    from pipeline.common.project import CALIBRATION_FILE, locate, shards_folder, stage_name
    from pipeline.evaluation.calibration import calibrate as measure
    from pipeline.evaluation.calibration import write_calibration
    from pipeline.manifests.clips import TRAIN_SPLIT
    from pipeline.shards.reader import ShardSet

    model = resolve_model(target, dataset=dataset, seed=seed, params_path=params_path)
    paths = locate(model)
    if folder is None:
        if paths is None:
            raise click.UsageError(f"{model} is outside a project, so there are no default shards; pass --shards")
        split = load_params(paths.project / params_path).score_split
        folder = shards_folder(paths.project, paths.dataset, split)
        if not folder.is_dir():
            raise ShardError(
                f"{folder}: no such shards; run `dvc repro {stage_name('extract', folder)}`, or pass --shards"
            )
    # Do not overwrite the output of a DVC stage, which would make the stage look changed.
    if output is None and paths and paths.scores.is_file():
        raise EvaluationError(
            f"{paths.scores}: this variant is calibrated by its evaluation; run `dvc repro {stage_name('evaluate', paths.scores.parent)}`, or pass -o"
        )
    path = output or (paths.calibration if paths else model.with_name(CALIBRATION_FILE))
    calibration = measure(
        model, ShardSet.open(folder), split=Path(os.path.normpath(folder.absolute())).name, device=device
    )
    write_calibration(path, calibration)
    if calibration.split == TRAIN_SPLIT:
        note("the model was trained on these clips and responds to them more strongly than to new ones")
    if as_json:
        echo(json.dumps({"file": str(path), **asdict(calibration)}, indent=2))
        return
    echo(f"wrote {path}: {calibration.describe()}")
