"""Options and option types shared by several `soundspot` commands."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.common.project import PARAMS_FILE

PATH = click.Path(path_type=Path)
Command = Callable[..., Any]

params_option = click.option(
    "--params", "params_path", type=PATH, default=PARAMS_FILE, show_default=True, help="Settings file."
)

DEVICE_VARIABLE = "SOUNDSPOT_DEVICE"
device_option = click.option(
    "--device", default="auto", show_default=True, envvar=DEVICE_VARIABLE, help="auto, cpu, cuda or cuda:N."
)
model_option = click.option(
    "--model",
    envvar="SOUNDSPOT_MODEL",
    help="A model.pt, a run folder, or the name of a variant. Default: $SOUNDSPOT_MODEL, or the newest run on the dataset.",
)


def default_device() -> str:
    """Return the device for a command that is called by another one, for which click reads no environment variable."""
    return os.environ.get(DEVICE_VARIABLE, "auto")


class FiniteRange(click.FloatRange):
    """A finite floating-point number within bounds; click's FloatRange accepts infinity and NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; raise a usage error if it is not finite."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def target_options(function: Command) -> Command:
    """Add the options that select a variant's run: `dataset`, `seed` and `params_path`."""
    for option in (
        params_option,
        click.option(
            "--seed", type=int, help="Seed of the run, if the variant was trained with several. Default: the first."
        ),
        click.option("--dataset", help="Dataset of the variant. Default: the active one of the settings file."),
    ):
        function = option(function)
    return function
