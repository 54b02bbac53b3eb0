"""`soundspot sensitivity`: how scores depend on one setting, from finished DVC experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import PATH, params_option
from pipeline.common.console import echo
from pipeline.common.project import results_folder


@click.command()
@click.argument("setting")
@click.argument("variants", nargs=-1)
@click.option("--dataset", help="Name of the dataset. Default: the active one of the settings file.")
@click.option(
    "--split",
    default="validation",
    show_default=True,
    help="Split whose scores are compared. Do not choose settings on `test`.",
)
@click.option(
    "--all-commits", is_flag=True, help="Use the experiments of all commits of this branch, not only of HEAD."
)
@click.option("--output", type=PATH, help="Output folder. Default: results/DATASET/sensitivity.")
@params_option
def sensitivity(
    setting: str,
    variants: tuple[str, ...],
    dataset: str | None,
    split: str,
    all_commits: bool,
    output: Path | None,
    params_path: Path,
) -> None:
    """Compare finished `dvc exp` experiments that differ in one SETTING: a table and a plot of the scores.

    SETTING is a name such as delta_v (the value that each variant really trains with) or a dotted key of the settings
    file. VARIANTS defaults to all that were scored. Writes SETTING.md, SETTING.csv and SETTING.png.

    \b
    Example (queued experiments reuse shards and initialization only if dvc.lock is committed):
      dvc exp run -S score_split=validation -S 'variants=[itr_intra,iterative]'
      git add dvc.lock params.yaml data results && git commit -m "Start of the sweeps"
      dvc exp run --queue -S training.demo.iterate.delta_v=0.7,0.8,0.9
      dvc exp run --run-all --jobs 1
      soundspot sensitivity delta_v
    """
    from pipeline.apps.compare.sensitivity import (
        compare,
        sensitivity_figure,
        sensitivity_rows,
        sensitivity_table,
    )
    from pipeline.common.config import load_params
    from pipeline.common.files import write_csv, write_text
    from pipeline.figures.style import save

    dataset = dataset or load_params(params_path).dataset
    experiments = list_experiments(all_commits=all_commits)
    series = compare(
        experiments, setting, read_scores=read_from_commit, dataset=dataset, split=split, variants=variants
    )
    table = sensitivity_table(series, setting)
    echo(f"{dataset}, {split}; percent with 95% interval over clips\n\n{table.text()}")
    stem = (output or results_folder(Path(), dataset) / "sensitivity") / setting
    title = f"Scores on the split `{split}` of {dataset}, in percent with bootstrap 95% interval over clips."
    write_text(stem.with_name(f"{setting}.md"), f"{title}\n\n{table.markdown()}")
    write_csv(stem.with_name(f"{setting}.csv"), *sensitivity_rows(series))
    save(sensitivity_figure(series, setting), stem.with_name(f"{setting}.png"))
    echo(f"wrote {stem}.md, .csv, .png")


def list_experiments(*, all_commits: bool) -> list[dict[str, Any]]:
    """Return the rows of `dvc.api.exp_show`, newest first. Raises EvaluationError outside of a DVC project."""
    from dvc.api import exp_show
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    from pipeline.common.errors import EvaluationError

    try:
        experiments: list[dict[str, Any]] = exp_show(num=-1 if all_commits else 1)
    except (DvcException, SCMError) as error:
        raise EvaluationError(f"DVC cannot list experiments: {error}; run from the project's root") from None
    return experiments


def read_from_commit(rev: str, path: Path) -> dict[str, Any] | None:
    """Read the JSON file `path` of the project as it is in the commit `rev`; None if it is not there or damaged."""
    import json

    from dvc.repo import Repo

    with Repo() as repo:
        files = repo.scm.get_fs(rev)
        # The project may be in a subfolder of the Git repository.
        inside = Path(repo.root_dir).relative_to(repo.scm.root_dir) / path
        try:
            content = json.loads(files.open(inside.as_posix(), "r", encoding="utf-8").read())
        except (FileNotFoundError, ValueError):
            return None
    return content if isinstance(content, dict) else None
