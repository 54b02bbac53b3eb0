"""Text for the terminal and for Markdown: tables, counts, and characters that are safe to print."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

_JOINERS = "\u200c\u200d"
MISSING = "–"  # shown instead of a value that does not exist


@dataclass(frozen=True)
class Table:
    """Text cells under a header. The first column is left-aligned, the others right-aligned."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table as GitHub Markdown, ending in a newline."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        cells = [[printable(cell).replace("|", r"\|") for cell in row] for row in (self.header, rule, *self.rows)]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join(lines) + "\n"

    def text(self) -> str:
        """Return the table for a terminal, each column as wide as its longest cell, ending in a newline."""
        header, *rows = [tuple(map(printable, cells)) for cells in (self.header, *self.rows)]
        widths = [max(len(cells[i]) for cells in (header, *rows)) for i in range(len(header))]
        ruled = (header, tuple("-" * width for width in widths), *rows)
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            for cells in ruled
        ]
        return "\n".join(line.rstrip() for line in lines) + "\n"  # the last cells may be empty


def counted(n: int, noun: str) -> str:
    """Return "1 clip" or "2 clips".

    Examples
    --------
    >>> counted(1, "clip"), counted(0, "clip")
    ('1 clip', '0 clips')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def printable(text: str) -> str:
    """Return one line that cannot control a terminal: control, direction and invisible characters are escaped as in Python.

    File names, titles and messages of libraries can contain any character: escape sequences that repaint the screen, line
    breaks that look like another message, and marks that reverse the order in which a name is shown.
    """
    return text if text.isprintable() else "".join(map(_printable, text))


def printable_lines(text: str) -> str:
    """Return text that cannot control a terminal, with its line breaks."""
    return "\n".join(map(printable, text.replace("\r\n", "\n").split("\n")))


def _printable(character: str) -> str:
    # Spaces of all widths and the joiners of scripts and emoji are no danger, and common in file names.
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")
