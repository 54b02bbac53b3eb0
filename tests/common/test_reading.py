"""Readers of text: right values, and one error for everything that is damaged, hostile, or of another format."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.common.errors import EvaluationError, ManifestError
from pipeline.common.reading import read_array, read_json, read_text, read_xml, read_yaml
from pipeline.common.tables import read_records, read_table
from tests.support.open_files import limited_files

Reader = Callable[[Path], Any]
READERS: dict[str, Reader] = {
    "json": lambda path: read_json(path, ManifestError),
    "yaml": lambda path: read_yaml(path, ManifestError),
    "csv": lambda path: read_table(path),
    "xml": lambda path: read_xml(path, ManifestError),
    "npy": lambda path: read_array(path, ManifestError),
}
_LAUGHS = "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 12))
_MERGES = "".join(f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
_ATTRIBUTES = " ".join(f'x{i} CDATA "{"y" * 100}"' for i in range(10_000))
_ENTITIES = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 9}">' for i in range(1, 12))


def npy_header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


# Format, content, and a part of the message.
HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "missing": ("json", b"", "a.json"),
    "nested lists": ("json", b"[" * 100_000, "nested"),
    "nested lists, closed": ("json", b"[" * 500 + b"]" * 500, "nested"),
    "nested objects": ("json", b'{"a":' * 100_000, "nested"),
    "5,000 digits": ("json", b"[" + b"9" * 5000 + b"]", "5000 digits"),
    "400 digits": ("json", b"[" + b"9" * 400 + b"]", "400 digits"),
    "NaN": ("json", b'{"a": [NaN]}', "nan is not finite"),
    "infinity": ("json", b'{"a": 1e999}', "inf is not finite"),
    "binary json": ("json", bytes(range(256)), "UTF-8"),
    "null characters in json": ("json", b'{"a": "\x00"}', "null"),
    "utf-16 json": ("json", '{"a": 1}'.encode("utf-16"), "UTF-16"),
    "too large": ("json", b" " * (33 << 20), "limit"),
    "aliases": ("yaml", f"b0: &b0 [1, 2]\n{_LAUGHS}".encode(), "more than"),
    "merged aliases": ("yaml", f"b0: &b0 {{a: 1, b: 2}}\n{_MERGES}".encode(), "more than"),
    "an alias in its anchor": ("yaml", b"a: &a [*a]", "inside its own anchor"),
    "chained aliases": ("yaml", b"b0: &b0 [1]\n" + b"".join(b"b%d: &b%d [*b%d]\n" % (i, i, i - 1) for i in range(1, 99)), "nested"),
    "nested flow": ("yaml", b"[" * 50_000, "nested"),
    "nested blocks": ("yaml", b"- " * 50_000, "nested"),
    "a long number": ("yaml", b"a: " + b"9" * 5000, "5000"),
    "a long sexagesimal number": ("yaml", b"a: 1" + b":59" * 50_000, "a number of"),
    "a date that does not exist": ("yaml", b"title: 2020-13-45", "date .2020-13-45.*quotes.*line 1"),
    "a date": ("yaml", b"title: 2020-12-05", "2020-12-05"),
    "a tag": ("yaml", b"a: !!python/object/apply:os.system [ls]", "os.system"),
    "a boolean that is none": ("yaml", b"a: !!bool maybe", "YAML"),
    "an empty number": ("yaml", b"a: !!int ''", "YAML"),
    "a key twice": ("yaml", b"a: 1\nb: {c: 2, d: 3, c: 4}\n", "duplicate key 'c'.*line 2"),
    "a list as key": ("yaml", b"? [a]\n: 1", "YAML"),
    "not a number": ("yaml", b"a: .nan", "not finite"),
    "control characters": ("yaml", b"a: \x07", "YAML"),
    "a large yaml": ("yaml", b"# comment\n" * 40_000, "limit"),
    "many values": ("yaml", b"[" + b"1," * 100_000 + b"]", "more than"),
    "binary csv": ("csv", bytes(range(256)) * 100, "UTF-8"),
    "null characters": ("csv", b"a,b\n1,\x002\n", "null"),
    "utf-16 without a mark": ("csv", "a,b\n1,2\n".encode("utf-16-le"), "UTF-8"),
    "latin-1": ("csv", "clip,é\n".encode("latin-1"), "UTF-8"),
    "a long cell": ("csv", b"a,b\n" + b"x" * 200_000 + b",1\n", "field"),
    "an endless line": ("csv", b"a" * (3 << 20), "a line of more"),
    "an open quote": ("csv", b'a,b\n"1,2\n3,4\n', "CSV"),
    "unknown encoding": ("xml", b'<?xml version="1.0" encoding="nonsense"?><a/>', "encoding"),
    "unsupported encoding": ("xml", b'<?xml version="1.0" encoding="utf-7"?><a/>', "XML"),
    "entities": ("xml", f'<!DOCTYPE a [<!ENTITY e0 "ha">{_ENTITIES}]><a>&e11;</a>'.encode(), "entities"),
    "a file as entity": ("xml", b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>', "entities"),
    "default attributes": ("xml", f'<!DOCTYPE a [<!ATTLIST b {_ATTRIBUTES}>]><a>{"<b/>" * 20_000}</a>'.encode(), "default attributes"),
    "entities in utf-16": ("xml", '<!DOCTYPE a [<!ENTITY e "ha">]><a>&e;</a>'.encode("utf-16"), "entities"),
    "nested elements": ("xml", b"<a>" * 100_000, "nested"),
    "not xml": ("xml", b"no xml", "XML"),
    "binary xml": ("xml", bytes(range(256)), "XML"),
    "a header that claims terabytes": ("npy", npy_header((10**12,)) + b"1234", "NumPy"),
    "a header that claims more": ("npy", npy_header((10**30, 10**30)) + b"1234", "NumPy"),
    "objects": ("npy", npy_header((1,), "|O") + b"cos\nsystem\n(S'true'\ntR.", "NumPy"),
    "no header": ("npy", b"\x93NUMPY", "NumPy"),
    "not an array": ("npy", b"1,2,3", "NumPy"),
    "an archive": ("npy", b"PK\x03\x04" + b"\0" * 50, "NumPy"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_one_error_that_names_it(tmp_path: Path, case: str) -> None:
    kind, content, message = HOSTILE[case]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(ManifestError, match=message) as caught:
        READERS[kind](path)
    assert time.process_time() - started < 5
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("kind", READERS)
def test_a_missing_file_a_folder_and_a_name_with_a_null_character(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        READERS[kind](tmp_path / f"none.{kind}")
    (tmp_path / f"folder.{kind}").mkdir()
    with pytest.raises(Exception, match=f"folder.{kind}") as caught:
        READERS[kind](tmp_path / f"folder.{kind}")
    assert type(caught.value).__module__ == "pipeline.common.errors"


@pytest.mark.parametrize("kind", READERS)
def test_the_limit_of_open_files_is_not_the_fault_of_a_file(tmp_path: Path, kind: str) -> None:
    from pipeline.common.errors import AccessError

    path = tmp_path / f"a.{kind}"
    path.write_bytes(b"")
    with limited_files(0), pytest.raises(AccessError, match=f"a.{kind}"):
        READERS[kind](path)


def test_json_values_come_back_as_they_were(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, None, True, "ä\u2028"], "b": {"c": []}, "n": 10**17}
    for name, encoding in (("plain.json", "utf-8"), ("mark.json", "utf-8-sig")):
        (tmp_path / name).write_text(json.dumps(value, ensure_ascii=False), encoding=encoding)
        assert read_json(tmp_path / name, ManifestError) == value
    (tmp_path / "half.json").write_text('{"a":\n[1,')
    with pytest.raises(ManifestError, match=r"half\.json:2"):
        read_json(tmp_path / "half.json", ManifestError)


def test_yaml_with_aliases_merges_and_every_allowed_type(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: [2.5, null, yes]}\nown:\n  <<: *base\n  a: 'x'\nagain: *base\n"
    (tmp_path / "a.yaml").write_text(text)
    base = {"a": 1, "b": [2.5, None, True]}
    assert read_yaml(tmp_path / "a.yaml", ManifestError) == {
        "base": base,
        "own": {"a": "x", "b": [2.5, None, True]},
        "again": base,
    }


def test_records_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffa,b\r\n"x,\ny",2\r\n\r\nü,3\r\n'.encode())
    assert read_records(path, EvaluationError) == [{"a": "x,\ny", "b": "2"}, {"a": "ü", "b": "3"}]
    path.write_text("a,b\n1\n")
    with pytest.raises(EvaluationError, match=r"a\.csv:2: 1 cells"):
        read_records(path, EvaluationError)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_xml_in_the_encodings_that_it_may_have(tmp_path: Path, encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a><a><b>é &amp; 1</b></a>'
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert [child.text for child in read_xml(tmp_path / "a.xml", ManifestError)] == ["é & 1"]


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.zeros((0, 5)), np.asfortranarray(np.eye(3)), np.array("x")]
)
def test_arrays_come_back_as_they_were(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    back = read_array(tmp_path / "a.npy", ManifestError)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype


def test_text_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfx\n")
    assert read_text(tmp_path / "a.txt", ManifestError) == "x\n"
