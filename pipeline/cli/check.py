"""`soundspot check`: what is missing, how large, how long, and whether it fits, before you spend hours training."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import device_option, params_option
from pipeline.common.console import echo
from pipeline.common.text_table import counted


@click.command()
@click.argument("variants", nargs=-1)
@click.option("--dataset", help="Name of the dataset. Default: the active one of the settings file.")
@click.option(
    "--batches",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Batches per epoch of the test run that measures time and memory; 0 skips it.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@params_option
@click.pass_context
def check(
    ctx: click.Context,
    variants: tuple[str, ...],
    dataset: str | None,
    batches: int,
    device: str,
    as_json: bool,
    params_path: Path,
) -> None:
    """Report what a dataset lacks and what training on it costs. Writes nothing.

    Checks lists, boxes, media and weights, estimates the size of all files, and runs the stages of VARIANTS (default:
    those of the settings file) on a few synthetic batches to measure time and memory. The exit code is 0 if the
    pipeline can run and 1 if there are problems.

    \b
    Example:
      soundspot check
      soundspot check iterative --dataset soundnet_flickr --batches 1
    """
    import json

    from tqdm import tqdm

    from pipeline.apps.preflight.check import check_dataset
    from pipeline.common.config import load_params
    from pipeline.common.console import progress_disabled

    params = load_params(params_path)
    chosen = list(dict.fromkeys(variants or params.variants))
    with tqdm(total=len(chosen) + 1 if batches else 0, unit="stage", leave=False, disable=progress_disabled()) as bar:

        def on_stage(stage: str) -> None:
            bar.set_description(f"testing {stage}")
            bar.update()

        run = check_dataset(
            Path.cwd(),
            params,
            dataset or params.dataset,
            variants=chosen,
            n_batches=batches,
            device=device,
            on_stage=on_stage,
        )
    if as_json:
        echo(json.dumps(run.as_json(), indent=2))
    else:
        echo(run.text(), nl=False)
        for problem in run.problems:
            echo(f"problem: {problem}", err=True)
        verdict = f"cannot run yet ({counted(len(run.problems), 'problem')})" if run.problems else "ready to run"
        echo(f"{run.dataset}: {verdict}")
    ctx.exit(1 if run.problems else 0)
