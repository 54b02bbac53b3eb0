"""Tables of text: alignment, and line ends."""

from __future__ import annotations

from pipeline.common.text_table import Table

TABLE = Table(("method", "cIoU"), (("iterative", "52.8"), ("dmc", "7")))


def test_markdown():
    assert TABLE.markdown() == "| method | cIoU |\n| --- | ---: |\n| iterative | 52.8 |\n| dmc | 7 |\n"


def test_columns_are_as_wide_as_their_longest_cell():
    assert TABLE.text() == "method     cIoU\n---------  ----\niterative  52.8\ndmc           7\n"


def test_a_table_without_rows_is_its_header():
    assert Table(("a", "b"), ()).text() == "a  b\n-  -\n"
