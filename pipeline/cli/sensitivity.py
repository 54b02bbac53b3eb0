"""`soundspot sensitivity`: how scores depend on one setting, from the experiments that DVC keeps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from pipeline.common.project import results_folder

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("setting")
@click.argument("variants", nargs=-1)
@click.option("--dataset", help="Name of the dataset. Default: the active one of the settings file.")
@click.option(
    "--split", default="validation", show_default=True, help="Scores of this split; settings are not chosen on `test`."
)
@click.option("--all-commits", is_flag=True, help="Experiments of every commit, not only of the present one.")
@click.option(
    "--experiments", type=PATH, help="Read this file, which `dvc exp show --json` wrote, instead of asking DVC."
)
@click.option("--output", type=PATH, help="Folder for the files. Default: results/DATASET/sensitivity.")
@click.option("--params", "params_path", type=PATH, default="params.yaml", show_default=True, help="Settings file.")
def sensitivity(
    setting: str,
    variants: tuple[str, ...],
    dataset: str | None,
    split: str,
    all_commits: bool,
    experiments: Path | None,
    output: Path | None,
    params_path: Path,
) -> None:
    """Compare finished `dvc exp` experiments that differ in one SETTING: a table, and a picture of success rate and AUC.

    SETTING is a name such as delta_v, then it is what each variant really trains with, or a dotted key of the settings file.
    VARIANTS are by default all that the experiments scored. The files are SETTING.md, SETTING.csv and SETTING.png.

    \b
    Example; a queued experiment finds the shards and the initialization by a committed dvc.lock alone:
      dvc exp run -S score_split=validation -S 'variants=[itr_intra,iterative]'
      git add dvc.lock params.yaml data results && git commit -m "Start of the sweeps"
      dvc exp run --queue -S training.demo.iterate.delta_v=0.7,0.8,0.9
      dvc exp run --run-all --jobs 1
      soundspot sensitivity delta_v
    """
    from pipeline.apps.compare.sensitivity import (
        compare,
        read_experiments,
        sensitivity_figure,
        sensitivity_rows,
        sensitivity_table,
    )
    from pipeline.common.config import load_params
    from pipeline.common.files import write_csv, write_text
    from pipeline.figures.figures import save

    dataset = dataset or load_params(params_path).dataset
    text = _ask_dvc(all_commits=all_commits) if experiments is None else _read(experiments)
    series = compare(read_experiments(text), setting, dataset=dataset, split=split, variants=variants)
    table = sensitivity_table(series, setting)
    click.echo(f"{dataset}, {split}; percent, with the 95 % interval over clips\n\n{table.text()}")
    stem = (output or results_folder(Path(), dataset) / "sensitivity") / setting
    title = f"Scores on the split `{split}` of {dataset}, in percent, with the bootstrap 95 % interval over clips."
    write_text(stem.with_name(f"{setting}.md"), f"{title}\n\n{table.markdown()}")
    write_csv(stem.with_name(f"{setting}.csv"), *sensitivity_rows(series))
    save(sensitivity_figure(series, setting), stem.with_name(f"{setting}.png"))
    click.echo(f"wrote {stem}.md, .csv, .png")


def _ask_dvc(*, all_commits: bool) -> str:
    from pipeline.common.errors import EvaluationError

    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", *(["--all-commits"] if all_commits else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EvaluationError(f"`dvc exp show` failed: {reason}; run from the project's root, where dvc.yaml is")
    return done.stdout


def _read(path: Path) -> str:
    from pipeline.common.errors import EvaluationError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: {error}; give what `dvc exp show --json` wrote") from None
