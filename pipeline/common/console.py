"""What every command of the project shares: how errors become one line and an exit code.

Exit codes: 0 done; 1 a user's mistake (one line ``error: …`` on stderr); 2 wrong options; 130 stopped by Ctrl-C. A fault
of the program keeps its traceback. Ctrl-C must not end with 0: whoever started the command would take it for done.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from pipeline.common.bars import VARIABLE, is_quiet
from pipeline.common.errors import SoundspotError

INTERRUPTED = 130  # 128 + SIGINT, as shells count
# The surroundings' fault rather than the program's: no rights, disk full, quota, read-only, a limit on the size of files; or a
# path that the user gave is a folder where a file is wanted, or the other way round, or is too long.
_SURROUNDINGS = {
    errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG,
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
}  # fmt: skip


def set_manners(ctx: click.Context, *, quiet: bool, verbose: bool) -> None:
    """Decide how much a command tells, before the module that does the work is imported.

    Parameters
    ----------
    ctx : click.Context
    quiet : bool
        No progress bars, in worker processes neither, and no notes.
    verbose : bool
        Log messages from the level INFO on, and the traceback of a user's mistake.

    Raises
    ------
    click.UsageError
        Both at once.
    """
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other")
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if quiet:
        os.environ[VARIABLE] = "1"
        warnings.simplefilter("ignore")
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )


def is_verbose() -> bool:
    """Tell whether the user wants to know where in the program an error came up."""
    return logging.getLogger().isEnabledFor(logging.INFO)


def note(message: str) -> None:
    """Print a line that is no result to stderr, unless the user wants quiet."""
    if not is_quiet():
        click.echo(message, err=True)


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and leave the process with its exit code.

    Parameters
    ----------
    command : click.Command
        A stage's command or the `soundspot` group.
    arguments : sequence of str, optional
        Command line without the program's name; by default the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        # A file's name may be no text, and a terminal may not know a letter: shown as escapes, rather than the command's end.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    try:
        code = command.main(args=arguments, standalone_mode=False)
    except SoundspotError as error:
        if is_verbose():
            traceback.print_exc()
        _print_error(str(error))
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno not in _SURROUNDINGS:
            raise
        _print_error(f"{error.filename2 or error.filename or 'writing'}: {error.strerror}")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(message: str) -> None:
    click.echo(f"error: {' '.join(message.split())}", err=True)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that ``--help`` and ``verify`` start at once.

    Parameters
    ----------
    commands_at : mapping of str to str
        Command name → ``module:attribute``. Names are spelled with hyphens; underscores are accepted too, since datasets
        are named with them.
    """

    def __init__(self, *args: Any, commands_at: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = dict(commands_at)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of the table."""
        return [*super().list_commands(ctx), *self.commands_at]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None if there is none of that name."""
        name = cmd_name.replace("_", "-")
        place = self.commands_at.get(name)
        if place is None:
            return super().get_command(ctx, name)
        module, attribute = place.split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command
