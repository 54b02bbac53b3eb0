"""Read CSV tables as people and spreadsheet programs write them; the only place that knows about separators and encodings.

Conventions
-----------
A table is UTF-8, with or without a byte-order mark, or UTF-16 with one. Its separator is a comma, a semicolon or a tab:
the most frequent of them in the first line, or the one named by Excel's line ``sep=;``. Spaces around a cell are removed,
and rows without any value are skipped. Anything else is an error that names the file and says how to save it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.common.access import raise_if_access_error
from pipeline.common.errors import ManifestError, SoundspotError

SEPARATORS = (",", ";", "\t")  # ties go to the first
_SNIFFED_CHARACTERS = 1 << 16
_LONGEST_LINE = 1 << 20  # characters; a row with the probabilities of 10,000 classes has 200,000
_SEP_LINE = re.compile(r"sep=([,;\t|])\s*", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_AS_UTF8 = "save it as UTF-8 (in Excel: “CSV UTF-8”)"
_BINARY = {b"PK\x03\x04": "an Excel or LibreOffice workbook", b"\xd0\xcf\x11\xe0": "an Excel workbook"}
_SPOILED = (
    (re.compile(r"[+-]?\d+([.,]\d+)?E\+\d+", re.IGNORECASE), "a spreadsheet program has rounded a long number"),
    (re.compile(r"\d+\.0"), "a program has converted it to a decimal number"),
    (
        re.compile(r"#(NAME|REF|VALUE|NUM|N/A|DIV/0)[?!]?", re.IGNORECASE),
        "a spreadsheet program interpreted it as a formula",
    ),
)


class Table:
    """An open table.

    Attributes
    ----------
    path : Path
    separator : str
    rows : iterator of (int, list of str)
        Line number, for messages, and the stripped cells of each row with a value; a header is a row like any other.
    """

    def __init__(self, path: Path, separator: str, file: IO[str]) -> None:
        self.path = path
        self.separator = separator
        self._file = file
        self.go_to((0, 0))

    def place(self) -> tuple[int, int]:
        """Return where the next row begins, for `go_to` of the same file, opened again."""
        return self._file.tell(), self._line

    def go_to(self, place: tuple[int, int]) -> None:
        """Continue `rows` at a place in the file."""
        position, self._line = place
        self._file.seek(position)
        self.rows = self._rows()

    def where(self, number: int) -> str:
        """Return the file and the line, for messages."""
        return f"{self.path}:{number}"

    def number(self, cell: str) -> str:
        """Return a cell with a decimal point. Where the separator is no comma, a comma can only be a decimal comma."""
        return cell.replace(",", ".") if self.separator != "," and _DECIMAL_COMMA.fullmatch(cell) else cell

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        before = self._line
        reader = csv.reader(_lines(self._file), delimiter=self.separator, skipinitialspace=True, strict=True)
        for row in reader:
            first = self._line == 0
            # The reader's own count, because a quoted value can contain line breaks.
            self._line = before + reader.line_num
            cells = [cell.strip() for cell in row]
            if any(cells) and not (first and _SEP_LINE.fullmatch(self.separator.join(row))):
                yield self._line, cells


@contextmanager
def open_table(path: Path, error: type[SoundspotError] = ManifestError) -> Iterator[Table]:
    """Open a table, which is read row by row.

    Raises
    ------
    AccessError
        The system cannot read the file.
    error
        The file is missing, a folder, a workbook, not text, or not CSV; also while the rows are read.
    """
    try:
        with file_errors(path, error), open(path, "rb") as binary:
            encoding = _encoding(binary.read(4), path, error)
            binary.seek(0)
            with io.TextIOWrapper(binary, encoding=encoding, newline="") as file:
                separator = _separator(file)
                yield Table(path, separator, file)
    except UnicodeError as problem:
        where = f" ({problem.reason} at byte {problem.start})" if isinstance(problem, UnicodeDecodeError) else ""
        raise error(f"{path}: not UTF-8 text{where}; {_AS_UTF8}") from None
    except csv.Error as problem:
        raise error(f"{path}: not readable as CSV: {problem}") from None


@contextmanager
def file_errors(path: Path, error: type[SoundspotError]) -> Iterator[None]:
    """Raise an OSError of opening or reading `path` as an AccessError, or else as `error`."""
    try:
        yield
    except FileNotFoundError:
        raise error(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise error(f"{path}: is a folder, expected a file") from None
    except OSError as problem:
        raise_if_access_error(path, problem)
        raise error(f"{path}: cannot be read: {problem.strerror or problem}") from None


def read_table(path: Path) -> list[tuple[int, list[str]]]:
    """Read all rows of a table. Raises ManifestError as `open_table` does."""
    with open_table(path) as table:
        return list(table.rows)


def read_records(path: Path, error: type[SoundspotError]) -> list[dict[str, str]]:
    """Read a table with a header into one dict per row. Raises as `open_table` does, and `error` for a row of another length."""
    with open_table(path, error) as table:
        _, header = next(table.rows, (1, []))
        records = []
        for line, cells in table.rows:
            if len(cells) != len(header):
                raise error(f"{path}:{line}: {len(cells)} cells, but the header has {len(header)}")
            records.append(dict(zip(header, cells, strict=True)))
    return records


def parse_decimal(text: str) -> float:
    """Parse a number with a decimal point or a decimal comma. Raises ValueError, also for ``1,234``, which may be 1234."""
    if _DECIMAL_COMMA.fullmatch(text) and not _THOUSANDS.fullmatch(text):
        text = text.replace(",", ".")
    return float(text)


def spoiled(text: str) -> str:
    """Return what a spreadsheet program did to a value and how to avoid it, as the end of a message; or an empty string."""
    for pattern, what in _SPOILED:
        if pattern.fullmatch(text):
            return f"; {what}: format the column as text, and export the list again"
    return ""


def _encoding(head: bytes, path: Path, error: type[SoundspotError]) -> str:
    for mark, kind in _BINARY.items():
        if head.startswith(mark):
            raise error(f"{path}: is {kind}, not CSV; save it as CSV UTF-8")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise error(f"{path}: not UTF-8 text; {_AS_UTF8}")
    return "utf-8-sig"


def _separator(file: IO[str]) -> str:
    """Return the separator that the first line with text has most often outside of quotes."""
    line = ""
    while not line.strip() and (read := file.readline(_SNIFFED_CHARACTERS)):
        line = read
    if named := _SEP_LINE.fullmatch(line):
        return named[1]
    outside = line.split('"')[::2]
    return max(SEPARATORS, key=lambda separator: sum(part.count(separator) for part in outside))


def _lines(file: IO[str]) -> Iterator[str]:
    # A file without line ends would fill the memory.
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise csv.Error(f"a line of more than {_LONGEST_LINE} characters")
        if "\0" in line:
            raise csv.Error("null characters")
        yield line
