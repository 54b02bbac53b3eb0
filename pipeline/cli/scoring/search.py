"""`soundspot search`: choose the settings of every row with the same budget, on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.cli.options import device_option, params_option
from pipeline.common.console import echo, note
from pipeline.common.project import CLIPS_FILE, DATA_FOLDER, SEARCH_FOLDER


@click.command()
@click.option("--dataset", help="Name of the dataset. Default: the active one of the settings file.")
@click.option("--rows", help="Rows to search, separated by commas. Default: all in `search.spaces`.")
@click.option("--trials", type=click.IntRange(min=1), help="Trials per row. Default: `search.trials`.")
@click.option(
    "--metric", help="Score to maximize. Default: quadrant_accuracy of mosaics, success_rate of other datasets."
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Rows searched in parallel on a CPU."
)
@click.option(
    "--prune", is_flag=True, help="End a trial whose score after an epoch is below the median of earlier trials."
)
@click.option("--fresh", is_flag=True, help="Remove the earlier trials of the rows first.")
@click.option(
    "--write", is_flag=True, help="Train nothing; write the winners of the finished search to the settings file."
)
@device_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    envvar="SOUNDSPOT_WORKERS",
    help="Processes that extract shards, if they are missing. Default: one per core.",
)
@params_option
def search(
    dataset: str | None,
    rows: str | None,
    trials: int | None,
    metric: str | None,
    jobs: int,
    prune: bool,
    fresh: bool,
    write: bool,
    device: str,
    workers: int | None,
    params_path: Path,
) -> None:
    """Choose the settings of every row of the tables: the same number of trials and epochs for each, on the validation split.

    `search` in the settings file has the settings to try. The initialization is searched first, and all rows start from its
    winner. All trials are in docs/search/NAME.csv and .png. An interrupted search resumes.

    \b
    Example:
      soundspot search --trials 16
      soundspot search --rows itr,iterative --jobs 2
      soundspot search --write
    """
    from pipeline.common.config import load_params
    from pipeline.search.results import table_path
    from pipeline.search.space import row_spaces

    params = load_params(params_path)
    dataset = dataset or params.dataset
    table = table_path(Path(), dataset)
    if write:
        write_found(table, dataset, params_path, rows=[space.row for space in row_spaces(params, dataset)])
        return

    from pipeline.search.data import open_data
    from pipeline.search.search import Search, start_over
    from pipeline.search.study import load_optuna

    load_optuna()  # before hours of extraction
    chosen = [row.strip() for row in rows.split(",")] if rows else []
    spaces = row_spaces(params, dataset, chosen)
    folder = Path(SEARCH_FOLDER) / dataset
    train, validation = open_data(Path(), dataset, params, metric=metric, device=device, workers=workers)
    if fresh:
        # The initialization only if it is named: a new one would make the trials of all other rows useless.
        start_over(folder, chosen or [space.row for space in spaces])
    task = Search(
        folder=folder,
        table=table,
        settings=params.training[dataset],
        train=train,
        validation=validation,
        clips=Path(DATA_FOLDER) / dataset / CLIPS_FILE,
        seed=params.search.seed,
        trials=trials or params.search.trials,
        prune=prune,
        device=device,
    )
    try:
        task.run(spaces, jobs=jobs)
    finally:
        show(table)


def show(table: Path) -> None:
    """Draw the plot, and print the best trial of each row."""
    from pipeline.common.text_table import Table
    from pipeline.search.figure import draw_trials
    from pipeline.search.results import best_trial, figure_path, read_table

    lines = read_table(table) if table.is_file() else []
    if not lines:
        return
    draw_trials(lines, figure_path(table))
    rows = []
    for row in dict.fromkeys(line.row for line in lines):
        trials = [line.trial for line in lines if line.row == row]
        best = best_trial(trials)
        values = ", ".join(f"{name} {value}" for name, value in best.settings.items()) if best else ""
        rows.append((row, str(len(trials)), f"{100 * (best.score or 0):.1f}" if best else "", values))
    echo(Table(("", "trials", f"best {lines[0].metric}, %", "settings"), tuple(rows)).text())
    echo(f"wrote {table}, .png; `soundspot search --write` writes the winners to the settings file")


def write_found(table: Path, dataset: str, params_path: Path, *, rows: Sequence[str]) -> None:
    """Write the winners of a table to the settings file, and say what changed. Raises SearchError if it lacks one of `rows`."""
    from pipeline.common.errors import SearchError
    from pipeline.search.results import winners
    from pipeline.search.winners_file import write_winners

    found = winners(table)
    if missing := [row for row in rows if row not in found]:
        raise SearchError(
            f"{table}: no trials of {', '.join(missing)}; all rows need the same budget: search them, or remove them from search.spaces"
        )
    write_winners(params_path, dataset, found, table=table.as_posix())
    for winner in found.values():
        values = ", ".join(f"{name} {value}" for name, value in winner.trial.settings.items())
        echo(
            f"{winner.row}: {values} (trial {winner.trial.number} of {winner.n_trials}, {100 * (winner.trial.score or 0):.1f}%)"
        )
    note(f"wrote {params_path}; settings were chosen on validation: report the scores of `test`")
