"""`soundspot doctor`: whether this machine has what the pipeline needs."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.console import echo
from pipeline.common.text_table import printable

MARKS = {"good": ("✓", "green"), "note": ("·", "yellow"), "bad": ("✗", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option(
    "--fix", is_flag=True, help="Remove locks left behind by killed DVC commands, if no DVC command is running."
)
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, fix: bool) -> None:
    """Check packages, codecs, GPU, Dask, DVC and disk, and report what to fix.

    The exit code is 0 if the pipeline has everything it needs and 1 otherwise.

    \b
    Example:
      soundspot doctor
      soundspot doctor --fix
      soundspot doctor --json > doctor.json     to attach to a bug report
    """
    import json
    from dataclasses import asdict

    from pipeline.apps.preflight.environment import examine

    findings = []
    for finding in examine(Path.cwd(), fix=fix):
        findings.append(finding)
        if not as_json:
            mark, color = MARKS[finding.state]
            click.echo(f"{click.style(mark, fg=color)} {printable(f'{finding.topic}: {finding.text}')}")
            if finding.hint:
                echo(f"    {finding.hint}")
    if as_json:
        echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    ctx.exit(1 if any(finding.state == "bad" for finding in findings) else 0)
