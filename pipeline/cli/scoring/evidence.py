"""`soundspot evidence`: one page with the results on several datasets, and what they show about each claim of the paper."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pipeline.cli.options import PATH
from pipeline.common.console import echo
from pipeline.common.project import results_folder


@click.command()
@click.argument("datasets", nargs=-1, required=True)
@click.option(
    "--out", type=PATH, default="docs/evidence.md", show_default=True, help="The page; figures go to images/."
)
@click.option("--note", default="", help="A paragraph for the top of the page, such as the machine and the date.")
def evidence(datasets: tuple[str, ...], out: Path, note: str) -> None:
    """Write one page on what the results show about each claim of the paper.

    DATASETS are names of datasets, or paths of their results folders, in the order of the page's columns. Rows that were not trained are
    left out and listed.

    \b
    Example, after `make tables` and `make real`:
      soundspot evidence demo real
    """
    from pipeline.common.errors import EvaluationError
    from pipeline.report.evidence.evidence import write_evidence
    from pipeline.report.evidence.results import read_results

    if out.suffix != ".md":
        raise EvaluationError(f"{out}: the file name must end in .md")
    folders = [Path(name) if "/" in name else results_folder(Path(), name) for name in datasets]
    results = [read_results(folder) for folder in folders]
    # Names, not paths: the page is for other machines as well.
    names = [each.name for each in results]
    if len(set(names)) < len(names):
        raise EvaluationError(f"{' '.join(datasets)}: two results have the same name; pass each dataset once")
    command = shlex.join(["soundspot", "evidence", *names])
    for path in write_evidence(out, results, command=command, note=note):
        echo(f"wrote {path}")
