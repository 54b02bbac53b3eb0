"""Read lists in Parquet as `pipeline.common.tables` reads CSV: a header, then rows of text, so that the same checks apply.

A list is read in batches, and memory depends neither on its length nor on the size of its row groups. Missing values
(null, and NaN, which pandas writes for a missing number) are empty cells. Spaces around a value are removed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.common.errors import ManifestError
from pipeline.common.packages import load_package
from pipeline.common.tables import file_errors

PARQUET_SUFFIX = ".parquet"
_ROWS_PER_BATCH = 4_096
_BUFFER_BYTES = 1 << 20  # per column, instead of the whole row group, which often holds a million rows


class ParquetTable:
    """An open Parquet file with the interface of `pipeline.common.tables.Table`; its places are row numbers from 0."""

    separator = ""

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._file = file
        self._header = [_text_column(path, field) for field in file.schema_arrow]
        self.go_to((0, 0))
        self.rows = self._all_rows()

    def where(self, number: int) -> str:
        """Return the file and the row, for messages; rows count from 1."""
        return f"{self.path}: row {number}" if number else f"{self.path}"

    def place(self) -> tuple[int, int]:
        """Return which row is next."""
        return self._next, 0

    def go_to(self, place: tuple[int, int]) -> None:
        """Continue `rows` at a row."""
        self._next = place[0]
        self.rows = self._rows()

    def number(self, cell: str) -> str:
        """Return the cell unchanged: Parquet stores numbers."""
        return cell

    def _all_rows(self) -> Iterator[tuple[int, list[str]]]:
        yield 0, self._header
        yield from self._rows()

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        for batch in self._batches():
            # One column after the other, because converting a row at a time is ten times slower.
            columns = [[_cell(value) for value in column.to_pylist()] for column in batch.columns]
            for cells in zip(*columns, strict=True):
                self._next += 1
                if any("\0" in cell for cell in cells):
                    raise ManifestError(f"{self.where(self._next)}: null characters")
                if any(cells):
                    yield self._next, list(cells)

    def _batches(self) -> Iterator[Any]:
        """Yield batches from the next row on, without reading the row groups before it."""
        skipped, groups = self._next, list(range(self._file.num_row_groups))
        while groups and skipped >= (n_rows := self._file.metadata.row_group(groups[0]).num_rows):
            skipped -= n_rows
            groups.pop(0)
        # With threads, more of the file would be in memory.
        for batch in self._file.iter_batches(_ROWS_PER_BATCH, row_groups=groups, use_threads=False):
            if skipped < batch.num_rows:
                yield batch.slice(skipped)
            skipped = max(skipped - batch.num_rows, 0)


@contextmanager
def open_parquet(path: Path) -> Iterator[ParquetTable]:
    """Open a Parquet file.

    Raises
    ------
    PackageError
        pyarrow is not installed.
    AccessError
        The system cannot read the file.
    ManifestError
        The file is missing, a folder, damaged or not Parquet, or has a column that is neither text nor numbers; also
        while the rows are read.
    """
    arrow = load_package("pyarrow", purpose="reading Parquet", extra="parquet")
    parquet = load_package("pyarrow.parquet", purpose="reading Parquet", extra="parquet")
    try:
        with file_errors(path, ManifestError), path.open("rb") as file:
            yield ParquetTable(path, parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False))
    except (arrow.ArrowException, UnicodeError) as error:
        raise ManifestError(
            f"{path}: cannot be read as Parquet ({' '.join(str(error).split())}); write it again"
        ) from None


def _text_column(path: Path, field: Any) -> str:
    """Return the name of a column; raise ManifestError if its values cannot be cells."""
    kind = str(field.type)
    while kind.startswith("dictionary<values="):
        kind = kind.removeprefix("dictionary<values=").split(",")[0]
    if not kind.removeprefix("large_").startswith(("string", "int", "uint", "float", "double", "halffloat", "null")):
        raise ManifestError(f"{path}: column {field.name} has values of type {field.type}; store text or numbers")
    return str(field.name).strip()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # pandas stores a column of whole numbers with a missing one as floats.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
