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
