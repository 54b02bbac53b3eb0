"""What makes tables of scores easier to read: the best value of a column is bold, and equal columns are one.

Cells are those of `pipeline.scoring.tables`: a value in percent, maybe a deviation, and an interval; or a dash.
"""

from __future__ import annotations

import re
from dataclasses import replace

from pipeline.common.text_table import Table

_VALUE = re.compile(r"-?\d+\.\d+")


def bold_best(table: Table) -> Table:
    """Return a table of scores in Markdown with the highest value of each column in bold; all of them if several are equal."""
    columns = list(zip(*table.rows, strict=True))
    best = [max(map(_value, column), default=None) for column in columns[1:]]
    rows = [
        (label, *(_bold(cell) if _value(cell) == top else cell for cell, top in zip(cells, best, strict=True)))
        for label, *cells in table.rows
    ]
    return replace(table, rows=tuple(rows))


def merge_equal_columns(table: Table) -> Table:
    """Return a table in which columns with the same text in every row are one column, under all their names."""
    names: dict[tuple[str, ...], list[str]] = {}
    first, *columns = zip(*table.rows, strict=True)
    for name, column in zip(table.header[1:], columns, strict=True):
        names.setdefault(column, []).append(name)
    return Table(
        (table.header[0], *(" = ".join(each) for each in names.values())), tuple(zip(first, *names, strict=True))
    )


def _value(cell: str) -> float:
    match = _VALUE.match(cell)
    return float(match[0]) if match else float("-inf")


def _bold(cell: str) -> str:
    return _VALUE.sub(r"**\g<0>**", cell, count=1)
