"""The pages of the documentation and the texts of `--help`, with the commands and code that they contain."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from pipeline.cli.main import soundspot
from tests.support.projects import ROOT

# The order in which pages run. The last ones change the project: the experiments leave the scores of another split, a DVC recipe
# empties the cache, and the tutorials switch to other datasets.
FIRST, LAST = (
    ("README.md", "quickstart.md"),
    ("datasets.md", "experiments.md", "dvc.md", "tutorial.md", "tutorial-dvc.md"),
)
SHELL = {"bash", "sh", "shell", "console"}
PROGRAMS = {
    "cd", "dask", "dvc", "eval", "export", "git", "make", "mkdir", "mkdocs", "pip", "pre-commit", "pytest", "python",
    "python3", "sed", "soundspot", ".",
}  # fmt: skip
_FENCE = re.compile(r"^( *)```(\S*)([^\n]*)\n(.*?)^\1```\s*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`((?:soundspot|dvc|make|python) [^`\n]+)`(?!`)")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_EXAMPLE = re.compile(r"\s*(?:Example[^:]*: +)?((?:soundspot|dvc|python -m stages\.) ?\S.*)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `language` is the word after the fence."""

    page: str
    language: str
    options: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command; `variables` are the assignments before the program."""

    page: str
    text: str
    variables: tuple[str, ...]
    words: tuple[str, ...]


def pages() -> list[Path]:
    """README.md, CONTRIBUTING.md and all pages of docs/, in the order in which their commands run."""
    there = {path.name: path for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]}
    middle = sorted(there.keys() - {*FIRST, *LAST})
    return [there[name] for name in (*FIRST, *middle, *LAST)]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(page.name, m[2], m[3].strip(), m[4]) for m in _FENCE.finditer(text)]


def shell_blocks(page: Path) -> list[Block]:
    """Return shell blocks: those marked as shell, and those without a language whose first word is a program."""
    return [
        block
        for block in blocks(page)
        if block.language in SHELL or (not block.language and _first_word(block.text) in PROGRAMS)
    ]


def commands(page: Path) -> list[Command]:
    """Return all commands of the page's shell blocks, in order."""
    return [command for block in shell_blocks(page) for command in parse(block.text, page.name)]


def mentioned(page: Path) -> list[Command]:
    """Return commands in backquotes in the text, except those with an ellipsis."""
    return mentioned_in(_FENCE.sub("", page.read_text(encoding="utf-8")), page.name)


def click_commands() -> dict[str, click.Command]:
    """Return every command that has a `--help` by its command line: `soundspot`, its subcommands, and the stages."""
    found = {f"python -m stages.{name}": importlib.import_module(f"stages.{name}").main for name in _stages()}

    def look(command: click.Command, path: str) -> None:
        found[path] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                look(command.get_command(context, name), f"{path} {name}")

    look(soundspot, "soundspot")
    return found


def _stages() -> list[str]:
    return sorted(
        path.stem
        for path in (ROOT / "stages").glob("*.py")
        if path.stem not in ("__init__", "options", "training_options")
    )


def examples(text: str, page: str) -> list[Command]:
    """Return the commands at the start of a help text's lines, optionally after ``Example:``; drop comments to their right."""
    lines: list[str] = []
    for line in re.sub(
        r"\n\s+(?=-)", " ", text
    ).splitlines():  # a line that starts with an option continues the previous one
        if found := _EXAMPLE.fullmatch(line):
            lines.append(re.split(r" {3,}", found[1])[0])
    return [command for line in lines for command in parse(line, page)]


def mentioned_in(text: str, page: str) -> list[Command]:
    """Return commands in backquotes, except those with an ellipsis."""
    spans = [span for span in _SPAN.findall(text) if "…" not in span]
    return [command for span in spans for command in parse(span, page)]


def parse(text: str, page: str) -> Iterator[Command]:
    """Split shell text into commands; only comments, continued lines and ``&&`` are supported."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            one, words = words[:end], words[end + 1 :]
            n_variables = next((i for i, word in enumerate(one) if not _ASSIGNMENT.fullmatch(word)), len(one))
            yield Command(page, shlex.join(one), tuple(one[:n_variables]), tuple(one[n_variables:]))


def _first_word(text: str) -> str:
    words = " ".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).split()
    return next((word for word in words if not _ASSIGNMENT.fullmatch(word)), "")
