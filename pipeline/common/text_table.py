"""Tables of text for the terminal and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass

MISSING = "–"  # shown instead of a value that does not exist


@dataclass(frozen=True)
class Table:
    """Text cells under a header. The first column is left-aligned, the others right-aligned."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table as GitHub Markdown, ending in a newline."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.header, rule, *self.rows)]
        return "\n".join(lines) + "\n"

    def text(self) -> str:
        """Return the table for a terminal, each column as wide as its longest cell, ending in a newline."""
        widths = [max(len(cells[i]) for cells in (self.header, *self.rows)) for i in range(len(self.header))]
        ruled = (self.header, tuple("-" * width for width in widths), *self.rows)
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            for cells in ruled
        ]
        return "\n".join(line.rstrip() for line in lines) + "\n"  # the last cells may be empty
