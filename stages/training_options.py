"""Options of `initialize` and `train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import reduce, wraps
from typing import Any

import click

from stages.options import fresh_option

EXECUTION_OPTIONS = (
    click.option(
        "--seeds-at-once",
        "n_parallel",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        envvar="SOUNDSPOT_SEEDS_AT_ONCE",
        help="Number of seeds trained in parallel on a CPU; the threads are divided among them.",
    ),
    click.option(
        "--processes",
        "n_processes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        envvar="SOUNDSPOT_PROCESSES",
        help="Number of processes that train together, one for each GPU. The result is that of one process, up to rounding.",
    ),
    click.option(
        "--compile/--no-compile",
        "compiled",
        default=False,
        show_default=True,
        envvar="SOUNDSPOT_COMPILE",
        help="Compile the backbones with torch.compile.",
    ),
    click.option(
        "--deterministic/--fastest",
        default=True,
        show_default=True,
        envvar="SOUNDSPOT_DETERMINISTIC",
        help="Deterministic algorithms on CUDA, or the fastest ones. On a CPU, results are always deterministic.",
    ),
    click.option(
        "--live",
        type=click.Choice(["auto", "dvclive", "tensorboard", "off"]),
        default="auto",
        show_default=True,
        envvar="SOUNDSPOT_LIVE",
        help="Log of the steps, in the folder live. auto: DVCLive, if it is installed.",
    ),
    fresh_option,
)


def execution_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how to train. The command gets them as one argument, `execution`."""

    @wraps(command)
    def with_execution(**values: Any) -> None:
        from pipeline.training.train import Execution

        chosen = {field.name: values.pop(field.name) for field in fields(Execution)}
        command(**values, execution=Execution(**chosen))

    return reduce(lambda function, option: option(function), reversed(EXECUTION_OPTIONS), with_execution)
