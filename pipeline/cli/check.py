"""`soundspot check`: what is missing, how large, how long, and whether it fits, before hours are spent."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("variants", nargs=-1)
@click.option("--dataset", help="Name of the dataset. Default: the active one of the settings file.")
@click.option(
    "--batches",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Batches of each epoch that is tried out for time and memory; 0 tries none.",
)
@click.option(
    "--device", default="auto", show_default=True, envvar="SOUNDSPOT_DEVICE", help="auto, cpu, cuda or cuda:N."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--params", "params_path", type=PATH, default="params.yaml", show_default=True, help="Settings file.")
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
    """Tell what a dataset still lacks, and what training on it will take, without writing anything.

    Looks for lists, boxes, media and weights; computes the size of all files from their formats; tries the stages of
    VARIANTS, by default those of the settings file, on a few synthetic batches for time and memory. The exit code is 0
    if the pipeline can run and 1 if something is in its way.

    \b
    Example:
      soundspot check
      soundspot check iterative --dataset soundnet_flickr --batches 1
    """
    import json

    from tqdm import tqdm

    from pipeline.apps.preflight.check import check_dataset
    from pipeline.common.bars import bars_off
    from pipeline.common.config import load_params

    params = load_params(params_path)
    chosen = list(dict.fromkeys(variants or params.variants))
    with tqdm(total=len(chosen) + 1 if batches else 0, unit="stage", leave=False, disable=bars_off()) as bar:

        def tell(stage: str) -> None:
            bar.set_description(f"trying {stage}")
            bar.update()

        run = check_dataset(
            Path.cwd(), params, dataset or params.dataset, variants=chosen, n_batches=batches, device=device, tell=tell
        )
    if as_json:
        click.echo(json.dumps(run.as_json(), indent=2))
    else:
        click.echo(run.text(), nl=False)
        for problem in run.problems:
            click.echo(f"problem: {problem}", err=True)
        verdict = f"cannot run yet, problems: {len(run.problems)}" if run.problems else "can run"
        click.echo(f"{run.dataset}: {verdict}")
    ctx.exit(1 if run.problems else 0)
