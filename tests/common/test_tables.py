"""Tables as spreadsheet programs write them: the same cells come out of every form, and anything else is one clear error."""

import pytest

from pipeline.common.errors import ManifestError
from pipeline.common.tables import open_table, parse_decimal, read_table, spoiled

ROWS = [["clip_id", "label", "x0"], ["a", "dog, small", "0.25"], ["b", "", "1"]]


def text(separator, end="\n"):
    """Write ROWS without the csv module."""
    cells = [[f'"{cell}"' if separator in cell else cell for cell in row] for row in ROWS]
    return "".join(separator.join(row) + end for row in cells)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_same_cells_whatever_the_separator_line_end_and_encoding(tmp_path, separator, end, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes(text(separator, end).encode(encoding))
    with open_table(path) as table:
        assert table.separator == separator
        assert [cells for _, cells in table.rows] == ROWS


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\r\nsep=;\r\na;b\r\n;;\r\n"x\r\ny"; z \r\nlast;1\r\n')
    assert [(line, cells) for line, cells in read_table(path) if "sep=" not in cells[0]] == [
        (3, ["a", "b"]),
        (6, ["x\r\ny", "z"]),
        (7, ["last", "1"]),
    ]


def test_excels_own_line_names_the_separator(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"sep=;\r\na,b;c\r\n")
    assert read_table(path) == [(2, ["a,b", "c"])]


def test_separators_inside_quotes_do_not_count(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id,30,"a; b; c; d",train\n')
    assert read_table(path) == [(1, ["id", "30", "a; b; c; d", "train"])]


def test_a_space_before_a_quote(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id, 30.000, "a, b"\n')
    assert read_table(path) == [(1, ["id", "30.000", "a, b"])]


def test_an_empty_table_has_no_rows(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"")
    assert read_table(tmp_path / "t.csv") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "workbook.*CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0rest", "workbook"),
        (b"caf\xe9\n", "not UTF-8.*byte 3.*CSV UTF-8"),
        ("a,b\n".encode("utf-16-le"), "not UTF-8"),
        (b'a,"b', "not readable as CSV"),
        (b"a," + b"x" * 200_000, "not readable as CSV: field larger"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=rf"t\.csv: .*{message}"):
        read_table(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ManifestError, match=r"none\.csv: no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="is a folder"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("written", "value"), [("0.25", 0.25), ("0,25", 0.25), (",5", 0.5), ("-1,5e-3", -0.0015), ("2", 2)]
)
def test_decimal_commas(written, value):
    assert parse_decimal(written) == value


@pytest.mark.parametrize("written", ["1,234", "12,500", "1.234,5", "1,2,3", "", "half"])
def test_what_may_be_another_number_is_none(written):
    with pytest.raises(ValueError, match=r"."):
        parse_decimal(written)


def test_a_comma_is_decimal_where_it_cannot_separate(tmp_path):
    for separator, expected in ((";", "12.500"), (",", "12,500")):
        (tmp_path / "t.csv").write_text(f'a{separator}b\n"12,500"{separator}1\n')
        with open_table(tmp_path / "t.csv") as table:
            assert table.number("12,500") == expected


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("1.23457E+11", "rounded"),
        ("1,2E+10", "rounded"),
        ("#NAME?", "formula"),
        ("12.0", "decimal number"),
        ("12", ""),
        ("a-E+1", ""),
    ],
)
def test_values_that_a_spreadsheet_spoiled(value, hint):
    assert (hint in spoiled(value)) if hint else spoiled(value) == ""
