"""Read the rows of a list with named columns: a clip list, boxes, or the prepared clips of all splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.tables import Table, open_table
from pipeline.manifests.parquet import PARQUET_SUFFIX, ParquetTable, open_parquet

_NUMBERS = {"centre_s", "x0", "y0", "x1", "y1"}  # the columns that may have decimal commas


@dataclass(frozen=True)
class Rows:
    """The rows of an open list, below its header."""

    table: Table | ParquetTable
    header: tuple[str, ...]
    n_cells: int

    def __iter__(self) -> Iterator[tuple[str, dict[str, str]]]:
        table, header = self.table, self.header
        for line, cells in table.rows:
            where = table.where(line)
            if not len(header) <= len(cells) <= self.n_cells or any(cells[len(header) :]):
                raise ManifestError(f"{where}: {_wrong_count(len(cells), len(header), table.separator)}")
            row = dict(zip(header, cells, strict=False))
            yield where, {name: table.number(cell) if name in _NUMBERS else cell for name, cell in row.items()}


@contextmanager
def open_rows(path: Path, columns: Sequence[str]) -> Iterator[Rows]:
    """Open a table that has exactly `columns`, in any order: ``.parquet`` is read as Parquet, any other file as CSV.

    The case of the header does not matter, and empty columns at the end are ignored.

    Raises
    ------
    ManifestError
        The file cannot be read as a table, or its header or a row does not fit `columns`.
    """
    opening = open_parquet(path) if path.suffix == PARQUET_SUFFIX else open_table(path)
    with opening as table:
        line, first = next(table.rows, (1, []))
        header = [name.lower() for name in first]
        while header and not header[-1]:
            header.pop()  # spreadsheet programs add empty columns at the end
        _check_header(header, columns, table.where(line))
        yield Rows(table, tuple(header), len(first))


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where a row is (``FILE:LINE``), for messages, and the value of each column for each row. Raises as `open_rows` does."""
    with open_rows(path, columns) as rows:
        yield from rows


def _wrong_count(n_cells: int, n_columns: int, separator: str) -> str:
    hint = ""
    if n_cells > n_columns and separator == ",":
        hint = "; quote values that contain a comma, and write numbers with a decimal point"
    return f"{n_cells} values, but the header has {n_columns} columns{hint}"


def _check_header(header: list[str], columns: Sequence[str], where: str) -> None:
    missing = [name for name in columns if name not in header]
    unknown = [name for name in header if name not in columns]
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    for problem, names in (("missing", missing), ("unknown", unknown), ("repeated", repeated)):
        if names:
            raise ManifestError(f"{where}: {problem} column {', '.join(names)}; the columns are {', '.join(columns)}")
