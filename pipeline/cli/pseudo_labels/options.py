"""Shared by the subcommands of `soundspot pseudo-labels`: TARGET, options, and output."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import PATH, Command, target_options
from pipeline.common.console import echo, note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.apps.inspection.figures import Frames
    from pipeline.apps.inspection.views import Artifacts
    from pipeline.pseudo_labels.artifact import PseudoLabels

PIXELS_PER_COLUMN = 8  # of a terminal, roughly


def targeted(function: Command) -> Command:
    """Add the options that resolve TARGET; the command is called with `artifacts`."""

    @functools.wraps(function)
    def command(target: str, dataset: str | None, seed: int | None, params_path: Path, **rest: Any) -> Any:
        from pipeline.cli.targets import resolve_labels

        return function(resolve_labels(target, dataset=dataset, seed=seed, params_path=params_path), **rest)

    return target_options(command)


def with_target(function: Command) -> Command:
    """Add the argument TARGET; apply it first, so that it precedes other arguments."""
    return click.argument("target")(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
epoch_option = click.option("--epoch", default="last", show_default=True, help="A number, first or last.")
shards_option = click.option(
    "--shards", type=PATH, help="Folder of the shards with the frames. Default: data/DATASET/shards/train."
)
center_option = click.option(
    "--center/--no-center",
    default=None,
    help="Subtract the mean of ã before Eq. 6. Default: as in training, from the run's model.pt.",
)


def output_option(what: str) -> Callable[[Command], Command]:
    """Return the option -o for a command that writes a figure."""
    return click.option("-o", "--output", type=PATH, help=what)


def show_value(value: Any, text: Callable[[], str], as_json: bool) -> None:
    """Print a value as JSON, or the result of `text`."""
    echo(json.dumps(value, indent=2, allow_nan=False) + "\n" if as_json else text(), nl=False)


def is_plain() -> bool:
    """Tell whether the output encoding is limited to ASCII."""
    try:
        "█◆←δ".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return True
    return False


def check_ending(output: Path | None, *endings: str) -> None:
    """Raise PseudoLabelError if the output file has another suffix."""
    from pipeline.common.errors import PseudoLabelError

    if output and output.suffix not in endings:
        raise PseudoLabelError(f"{output}: the file name must end in {' or '.join(endings)}")


def center_of(artifacts: Artifacts, chosen: bool | None) -> bool:
    """Return whether Eq. 6 subtracts the mean: as chosen, or as in training. Print a note if training is unknown."""
    from pipeline.apps.inspection.views import centering

    stated = centering(artifacts.run) if chosen is None else chosen
    if stated is None:
        note(
            f"note: {artifacts.run} has no finished model.pt, so it is unknown whether Eq. 6 subtracts the mean of ã; "
            "assuming --center"
        )
    return stated is not False


def frames_of(artifacts: Artifacts, shards: Path | None) -> Frames:
    """Return the frames of a run's training set. Print a note if there are none."""
    from pipeline.apps.inspection.figures import Frames
    from pipeline.cli.targets import open_shards

    opened = open_shards(artifacts.run, shards)
    if opened is None:
        note("note: no shards found, so frames are not shown; pass their folder with --shards")
    return Frames(opened)


def epoch_or_file(artifacts: Artifacts, word: str) -> PseudoLabels:
    """Open pseudo-labels by epoch or by path."""
    from pipeline.pseudo_labels.artifact import PseudoLabels

    return PseudoLabels.open(Path(word)) if Path(word).is_file() else artifacts.open(word)


def save_figure(figure: Figure, output: Path) -> None:
    """Write a figure as PNG and print its path."""
    from pipeline.figures.style import save

    save(figure, output)
    note(f"wrote {output}")


def terminal_png(figure: Figure) -> bytes:
    """Return a figure as PNG, no wider than the terminal."""
    import io

    buffer = io.BytesIO()
    width = PIXELS_PER_COLUMN * shutil.get_terminal_size().columns
    figure.savefig(buffer, format="png", dpi=min(figure.dpi, width / figure.get_figwidth()))
    return buffer.getvalue()
