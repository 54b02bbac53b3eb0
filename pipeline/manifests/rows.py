"""Read the rows of a list with named columns: a clip list, boxes, or the prepared clips of all splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.tables import Table, open_table

_NUMBERS = {"centre_s", "x0", "y0", "x1", "y1"}  # the columns that may have decimal commas


@dataclass(frozen=True)
class Rows:
    """The rows of an open list, below its header."""

    table: Table
    header: tuple[str, ...]
    n_cells: int

    def __iter__(self) -> Iterator[tuple[str, dict[str, str]]]:
        table, header = self.table, self.header
        for line, cells in table.rows:
            where = f"{table.path}:{line}"
            if not len(header) <= len(cells) <= self.n_cells or any(cells[len(header) :]):
                raise ManifestError(_wrong_count(len(cells), len(header), table, where))
            row = dict(zip(header, cells, strict=False))
            yield where, {name: table.number(cell) if name in _NUMBERS else cell for name, cell in row.items()}


@contextmanager
def open_rows(path: Path, columns: Sequence[str]) -> Iterator[Rows]:
    """Open a table that has exactly `columns`, in any order; see `pipeline.common.tables`.

    The case of the header does not matter, and empty columns at the end are ignored.

    Raises
    ------
    ManifestError
        The file cannot be read as a table, or its header or a row does not fit `columns`.
    """
    with open_table(path) as table:
        _, first = next(table.rows, (1, []))
        header = [name.lower() for name in first]
        while header and not header[-1]:
            header.pop()  # spreadsheet programs add empty columns at the end
        _check_header(header, columns, path)
        yield Rows(table, tuple(header), len(first))


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ``FILE:LINE``, for messages, and the value of each column for each row. Raises as `open_rows` does."""
    with open_rows(path, columns) as rows:
        yield from rows


def _wrong_count(n_cells: int, n_columns: int, table: Table, where: str) -> str:
    hint = ""
    if n_cells > n_columns and table.separator == ",":
        hint = "; quote values that contain a comma, and write numbers with a decimal point"
    return f"{where}: {n_cells} values, but the header has {n_columns} columns{hint}"


def _check_header(header: list[str], columns: Sequence[str], path: Path) -> None:
    missing = [name for name in columns if name not in header]
    unknown = [name for name in header if name not in columns]
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    for problem, names in (("missing", missing), ("unknown", unknown), ("repeated", repeated)):
        if names:
            raise ManifestError(f"{path}:1: {problem} column {', '.join(names)}; the columns are {', '.join(columns)}")
