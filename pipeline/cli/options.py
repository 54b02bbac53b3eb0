"""Options and types of options that several commands of `soundspot` share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
Command = Callable[..., Any]


class FiniteRange(click.FloatRange):
    """A floating-point number within bounds, which infinity and "not a number" are not: FloatRange itself takes both."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or end with a usage error."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


def target_options(function: Command) -> Command:
    """Give a command the options that find a variant's run; it is called with `dataset`, `seed` and `params_path`."""
    for option in (
        click.option(
            "--params", "params_path", type=PATH, default="params.yaml", show_default=True, help="Settings file."
        ),
        click.option("--seed", type=int, help="Of a variant that was trained with several. Default: the first."),
        click.option("--dataset", help="Of the variant. Default: the active one of the settings file."),
    ):
        function = option(function)
    return function
