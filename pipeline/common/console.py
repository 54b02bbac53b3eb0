"""Console behavior that all commands share: progress bars, notes, and errors as one line and an exit code.

Exit codes: 0 success; 1 user error (one line ``error: …`` on stderr); 2 wrong options; 130 stopped by Ctrl-C. Bugs keep
their traceback.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import Any, NoReturn

import click
from tqdm import tqdm

from pipeline.common.access import EXHAUSTED, access_advice, access_errno
from pipeline.common.errors import SoundspotError
from pipeline.common.text_table import printable, printable_lines

# tqdm's own variable. Unlike a Python flag it is inherited by worker processes and by DVC's stages.
QUIET_VARIABLE = "TQDM_DISABLE"
_LONGEST_ERROR = 4000  # characters
_silent = False  # see `be_silent`
INTERRUPTED = 130  # 128 + SIGINT, the shell convention; with 0 a caller would take the work for complete
# Problems of the environment rather than bugs: missing permissions, full or read-only disk, quota, file size limit; a path
# from the user that is a folder instead of a file or vice versa, or is too long.
_ENVIRONMENT_ERRNOS = {
    errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG,
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
}  # fmt: skip


def configure_output(ctx: click.Context, *, quiet: bool, verbose: bool) -> None:
    """Set how much a command prints. Call it before importing the module that does the work.

    Parameters
    ----------
    ctx : click.Context
    quiet : bool
        No progress bars, including those of worker processes, no notes and no warnings.
    verbose : bool
        Log messages from level INFO on, and tracebacks of user errors.

    Raises
    ------
    click.UsageError
        Both are set.
    """
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose are mutually exclusive")
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if quiet:
        os.environ[QUIET_VARIABLE] = "1"
        warnings.simplefilter("ignore")
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING, handlers=[handler]
    )


def is_quiet() -> bool:
    """Whether progress bars and notes are disabled."""
    return os.environ.get(QUIET_VARIABLE) == "1"


def is_verbose() -> bool:
    """Whether user errors are shown with their traceback."""
    return logging.getLogger().isEnabledFor(logging.INFO)


def be_silent() -> None:
    """Print nothing but errors from now on. For all but one of several processes that do the same work."""
    global _silent
    _silent = True
    os.environ[QUIET_VARIABLE] = "1"


def progress_disabled() -> bool | None:
    """Return the value for tqdm's `disable`: True for no bar, None for a bar only on a terminal."""
    # An explicit `disable=None` overrides TQDM_DISABLE, so it has to be checked here.
    return True if is_quiet() else None


def note(message: str) -> None:
    """Print a line to stderr, unless output is quiet. For everything that is not a result."""
    if not is_quiet():
        echo(printable(message), err=True)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text that may contain names and messages from elsewhere, so that it cannot control the terminal.

    All printing goes through this function, `note` or `report`, except for images.
    """
    click.echo(printable_lines(text), err=err, nl=nl)


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit the process with its exit code.

    Parameters
    ----------
    command : click.Command
        A stage's command or the `soundspot` group.
    arguments : sequence of str, optional
        Command line without the program name. Default: that of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        # File names may contain bytes or characters that the terminal cannot encode. Escape them instead of failing.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    sys.excepthook = _print_traceback
    try:
        code = command.main(args=arguments, standalone_mode=False)
    except SoundspotError as error:
        if is_verbose():
            echo(traceback.format_exc(), err=True, nl=False)
        _print_error(str(error))
        sys.exit(1)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        echo(shown.getvalue(), err=True, nl=False)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except OSError as error:
        number = access_errno(error)
        if number is None and error.errno not in _ENVIRONMENT_ERRNOS:
            raise
        # os.replace and os.link report two paths; the second is the one that could not be written.
        advice = f"; {access_advice(number)}" if number is not None and number in EXHAUSTED else ""
        _print_error(f"{error.filename2 or error.filename or 'writing'}: {error.strerror}{advice}")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(message: str) -> None:
    line = " ".join(message.split())
    echo(printable(f"error: {line[:_LONGEST_ERROR]}{' …' if len(line) > _LONGEST_ERROR else ''}"), err=True)


def _print_traceback(*error: Any) -> None:
    echo("".join(traceback.format_exception(*error)), err=True, nl=False)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def report(message: str) -> None:
    """Print one line to stderr, above a progress bar if there is one."""
    if not _silent:
        # In one piece: tqdm writes the line break on its own, and a line of another process could come between.
        tqdm.write(f"{printable(message)}\n", file=sys.stderr, end="")


class LazyGroup(click.Group):
    """A click group that imports a command's module only when the command is called, so that ``--help`` starts fast.

    A mistyped command is an error that suggests the nearest one. The list of commands has their whole first sentences.

    Parameters
    ----------
    commands_at : mapping of str to str
        Command name → ``module:attribute``. Names have hyphens; underscores are accepted too, because datasets are often
        named with them.
    """

    def __init__(self, *args: Any, commands_at: Mapping[str, str] = MappingProxyType({}), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = dict(commands_at)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of `commands_at`; others follow."""
        return [*self.commands_at, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if there is none of that name."""
        name = cmd_name.replace("_", "-")
        location = self.commands_at.get(name)
        if location is None:
            return super().get_command(ctx, name)
        module, attribute = location.split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with its whole first sentence, which click would cut at the end of the line."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, command.get_short_help_str(limit=_LONGEST_ERROR))
            for name, command in found
            if command and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return name, command and remaining arguments; a usage error with a suggestion if there is no such command."""
        # click itself has done so since 8.4, but only for commands that are imported already.
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            nearest = get_close_matches(args[0], self.list_commands(ctx), n=1)
            if nearest:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {nearest[0]!r}?")
        return super().resolve_command(ctx, args)
