"""Tables of scores: the best value of a column is bold, and columns with the same cells are one."""

from __future__ import annotations

from pipeline.common.text_table import Table
from pipeline.report.examples import rounded
from pipeline.report.sections.emphasis import bold_best, merge_equal_columns

ROWS = (("a", "9.5 (9.0–10.0)", "1.0", "–"), ("b", "10.5 ± 0.5 (9.0–11.0)", "1.0", "–"), ("c", "–", "0.5", "–"))


def test_the_best_of_each_column_is_bold_and_equal_ones_are_all():
    table = bold_best(Table(("", "x", "y", "z"), ROWS))
    assert table.header == ("", "x", "y", "z")
    assert table.rows == (
        ("a", "9.5 (9.0–10.0)", "**1.0**", "–"),
        ("b", "**10.5** ± 0.5 (9.0–11.0)", "**1.0**", "–"),
        ("c", "–", "0.5", "–"),
    )


def test_a_table_without_rows_has_no_best():
    assert bold_best(Table(("", "x"), ())).rows == ()


def test_equal_columns_are_one_under_all_names():
    table = Table(("", "AUC", "mean cIoU", "mean IoU", "other"), (("a", "1", "2", "2", "1"), ("b", "3", "4", "4", "5")))
    merged = merge_equal_columns(table)
    assert merged.header == ("", "AUC", "mean cIoU = mean IoU", "other")
    assert merged.rows == (("a", "1", "2", "1"), ("b", "3", "4", "5"))


def test_a_rounded_score_stays_on_its_side_of_the_threshold():
    values = (0.496, 0.49996, 0.5, 0.504, 0.494)
    assert [rounded(value, 0.5) for value in values] == ["0.496", "0.49996", "0.50", "0.50", "0.49"]
    assert rounded(0.2999999999, 0.3) == "0.300000"
