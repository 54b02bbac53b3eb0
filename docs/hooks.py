"""Hook of mkdocs: the command-line reference from click's own help, version and repository from setup.cfg, formulas as MathML.

The page `command-line.md` exists only in the built site, so it cannot differ from the commands.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from configparser import ConfigParser
from typing import Any

import click

FORMULA = re.compile(r'<(div|span) class="arithmatex">\\[\[(](.+?)\\[\])]</\1>', re.DOTALL)
NO_HEADER = re.compile(r"<thead>\s*<tr>\s*(?:<th(?: [^>]*)?></th>\s*)+</tr>\s*</thead>")
WIDTH = 75  # columns of a code block on a screen of 1400 pixels
ALIASES = {"pl": "pseudo-labels"}  # described once, under the long name
INTRODUCTION = """# Command line

The output of `--help` for every command. For exit codes, completion and environment variables, see [In the terminal](terminal.md).
"""


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command with its context, then all commands below it."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and name not in ALIASES:
                yield from commands(below, click.Context(below, info_name=name, parent=context))


def reference() -> str:
    """Return the command-line reference as Markdown."""
    from pipeline.cli.main import soundspot

    root = click.Context(soundspot, info_name="soundspot", terminal_width=WIDTH, max_content_width=WIDTH)
    parts = [INTRODUCTION]
    for command, context in commands(soundspot, root):
        parts.append(f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def on_files(files: Any, config: Any) -> Any:
    """Add the reference to the pages of the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "command-line.md", content=reference()))
    return files


def on_config(config: Any) -> Any:
    """Set the link to the repository, with the version."""
    from pipeline import __version__

    setup = ConfigParser()
    setup.read("setup.cfg", encoding="utf-8")
    config.repo_url, config.repo_name = setup["metadata"]["url"], f"{config.site_name} {__version__}"
    return config


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Replace formulas by MathML, which browsers render themselves, and remove table headers without text."""
    content = NO_HEADER.sub("", content)
    content = re.sub(r"<th( [^>]*)?></th>", r"<td\1></td>", content)
    return FORMULA.sub(lambda match: mathml(html.unescape(match[2]).strip(), block=match[1] == "div"), content)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Name the search, which the theme leaves without a name."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )


def mathml(formula: str, *, block: bool) -> str:
    """Return a formula in LaTeX as MathML."""
    from latex2mathml.converter import convert

    # A wide formula scrolls on a phone.
    return f'<div class="formula">{convert(formula, display="block")}</div>' if block else str(convert(formula))
