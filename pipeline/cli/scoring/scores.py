"""`soundspot scores`: the scores of all variants, one line each."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import params_option
from pipeline.common.console import echo
from pipeline.common.project import RESULTS_FOLDER, manifest_folder, results_folder, stage_name


@click.command()
@click.option(
    "--all", "every", is_flag=True, help="Show every dataset with results, including scores on other datasets."
)
@click.option("--dataset", help="Name of the dataset. Default: the active one of the settings file.")
@params_option
def scores(every: bool, dataset: str | None, params_path: Path) -> None:
    """Print one line per trained variant: its scores, next to shuffled audio and the best content-free baseline.

    Success and AUC have their bootstrap 95% interval over clips. "minus shuffled" is the success rate minus the success
    rate with the audio of other clips: what the model gains by listening. Mosaics also have their quadrant accuracy.

    \b
    Example:
      soundspot scores
      soundspot scores --all
    """
    from pipeline.apps.compare.overview import overview
    from pipeline.common.config import load_params
    from pipeline.common.errors import EvaluationError

    if every and dataset:
        raise click.UsageError("--all and --dataset are mutually exclusive")
    if every:
        folders = _with_scores(Path(RESULTS_FOLDER))
        if not folders:
            raise EvaluationError(f"{RESULTS_FOLDER}: no dataset has scores; run `dvc repro`")
    else:
        params = load_params(params_path)
        folders = [results_folder(Path(), dataset or params.dataset)]
    for folder in folders:
        tables = overview(folder)
        if not tables:
            raise EvaluationError(_nothing(folder, params.score_split))
        for title, table in tables:
            echo(f"{folder.relative_to(RESULTS_FOLDER).as_posix()}: {title}\n{table.text()}")


def _with_scores(results: Path) -> list[Path]:
    """Return the folders of datasets with scores, each followed by those of its models' scores on other datasets."""
    from pipeline.common.project import SCORES_FILE

    own, cross = (results.glob(f"{pattern}/{SCORES_FILE}") for pattern in ("*/*", "*/on/*/*"))
    return sorted({path.parent.parent for path in (*own, *cross)})


def _nothing(folder: Path, split: str) -> str:
    """Return why a dataset has no scores, and what to do."""
    from pipeline.manifests.boxes import boxes_path

    manifest = manifest_folder(Path(), folder.name)
    if not manifest.is_dir():
        return f"{manifest}: no such dataset; import it, or fix the name"
    boxes = boxes_path(manifest, split)
    if not boxes.is_file():
        return f"{boxes}: no such file; scores need boxes. To judge a model without boxes: `soundspot localize`"
    return f"{folder}: no scores; run `dvc repro {stage_name('evaluate', folder)}`"
