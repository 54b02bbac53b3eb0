import os
import pickle
import resource
import struct
import time

import numpy as np
import pytest

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.legacy_pickle import load_plain_pickle


def write(path, value, protocol):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_records_of_arrays_come_back_as_they_were(tmp_path, protocol):
    records = {
        0: {
            "visual": "./Data/0/10.jpg",
            "anno": np.array([["1", "2", "30", "256"], ["5", "6", "70", "80"]], dtype="<U3"),
            "roi": np.arange(32, dtype=np.float32).reshape(8, 4),
        },
        1: {"counts": [1, 2.5, None, True], "pair": (3, "x")},
    }
    back = load_plain_pickle(write(tmp_path / "gt.pkl", records, protocol))
    assert back[0]["visual"] == "./Data/0/10.jpg"
    np.testing.assert_array_equal(back[0]["anno"], records[0]["anno"])
    np.testing.assert_array_equal(back[0]["roi"], records[0]["roi"])
    assert back[0]["roi"].dtype == np.float32
    assert back[1] == {"counts": [1, 2.5, None, True], "pair": [3, "x"]}


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.arange(4, dtype=">i4"),
        np.array([True, False]),
        np.zeros((0, 4)),
        np.float64(2.5),
        np.array(["ä", "bcd"]),
    ],
    ids=["columns first", "big endian", "bool", "empty", "scalar", "letters"],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_every_plain_kind(tmp_path, array, protocol):
    back = load_plain_pickle(write(tmp_path / "a.pkl", array, protocol))
    np.testing.assert_array_equal(back, array)


def test_the_module_names_of_older_numpy_are_known(tmp_path):
    text = pickle.dumps({"anno": np.arange(3)}, protocol=0).replace(b"numpy._core", b"numpy.core")
    path = tmp_path / "old.pkl"
    path.write_bytes(text)
    np.testing.assert_array_equal(load_plain_pickle(path)["anno"], [0, 1, 2])


class Attack:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.system, (f"touch {self.flag}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(tmp_path, protocol):
    flag = tmp_path / "flag"
    path = write(tmp_path / "bad.pkl", {"anno": [Attack(flag)]}, protocol)
    with pytest.raises(ManifestError, match=r"bad.pkl: refused: .*(posix|nt|os).system"):
        load_plain_pickle(path)
    assert not flag.exists()


def test_an_array_of_objects_is_refused(tmp_path):
    flag = tmp_path / "flag"
    with pytest.raises(ManifestError, match=r"a.pkl: refused"):
        load_plain_pickle(write(tmp_path / "a.pkl", np.array([Attack(flag)], dtype=object), 4))
    with pytest.raises(ManifestError, match=r"b.pkl: refused: .*array of"):
        load_plain_pickle(write(tmp_path / "b.pkl", np.array([{"a": 1}], dtype=object), 4))
    assert not flag.exists()


def test_other_values_are_refused_by_name(tmp_path):
    with pytest.raises(ManifestError, match=r"set.pkl: refused: .*(builtins.set|__builtin__.set|a set)"):
        load_plain_pickle(write(tmp_path / "set.pkl", {"a": {1, 2}}, 4))
    with pytest.raises(ManifestError, match=r"rec.pkl: refused"):
        load_plain_pickle(write(tmp_path / "rec.pkl", np.zeros(2, dtype=[("x", "f4")]), 4))
    looped = []
    looped.append(looped)
    with pytest.raises(ManifestError, match="nested too deeply"):
        load_plain_pickle(write(tmp_path / "loop.pkl", looped, 4))


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1, 2], 4)[:-2], b"\x80\x04]\x94(K\x01e"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "cut.pkl"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"cut.pkl: "):
        load_plain_pickle(path)


def test_an_array_shorter_than_its_shape_is_refused(tmp_path):
    content = pickle.dumps(np.arange(4, dtype="u1"), protocol=2)
    path = tmp_path / "short.pkl"
    path.write_bytes(content.replace(b"K\x04\x85", b"K\x09\x85"))
    with pytest.raises(ManifestError, match=r"short.pkl: cannot be read"):
        load_plain_pickle(path)


def many(step, n):
    """Return instructions that build n values, each from the one before; `step` has the number of the one before."""
    return b"".join(step.replace(b"?", bytes([i])) + b"q" + bytes([i + 1]) for i in range(n))


# A few bytes each, which ask for memory or time without bound.
BOMBS = {
    "a tuple of tuples as key": b"\x80\x02})q\x00" + many(b"h?h?\x86", 60) + b"K\x01s.",
    "keys of a whole dict": b"\x80\x02()q\x00" + many(b"h?h?\x86", 60) + b"K\x01d.",
    "keys in one step": b"\x80\x02}()q\x00" + many(b"h?h?\x86", 60) + b"K\x01u.",
    "a tuple of tuples": b"\x80\x02)q\x00" + many(b"h?h?\x86", 60) + b".",
    "lists of lists": b"\x80\x02]q\x00K\x01a" + many(b"](" + b"h?" * 10 + b"e", 15) + b".",
    "a shape of tuples": b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(U\x00cnumpy\ndtype\nU\x02f4\x85R)q\x00"
    + many(b"h?h?\x86", 60)
    + b"U\x01CtR.",
    "an encoding of tuples": b"\x80\x02c_codecs\nencode\nX\x00\x00\x00\x00)q\x00" + many(b"h?h?\x86", 60) + b"\x86R.",
    "a text of terabytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 44) + b"abc.",
    "bytes of terabytes": b"\x80\x05\x8e" + struct.pack("<Q", 1 << 44) + b"abc.",
    "a byte array of terabytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 44) + b"abc.",
    "5,000 digits": b"L" + b"9" * 5000 + b"L\n.",
    "a long hexadecimal number": b"L0x" + b"f" * 50_000 + b"L\n.",
    "a long binary number": b"\x80\x02\x8b" + struct.pack("<i", 9999) + b"\x7f" * 9999 + b".",
    "keys that share a slot": pickle.dumps({i * (2**61 - 1): i for i in range(1, 2000)}, 2),
    "many instructions": b"\x80\x02" + b"]0" * 3_000_000 + b"N.",
    "a text that is encoded again and again": b"\x80\x02c_codecs\nencode\nq\x00(X"
    + struct.pack("<I", 1 << 20)
    + b"a" * (1 << 20)
    + b"U\x06latin1tq\x01"
    + b"h\x00h\x01R0" * 100_000
    + b"N.",
    "a call with a million arguments": b"\x80\x02c_codecs\nencode\n(" + b"N" * 1_000_000 + b"tR.",
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_neither_time_nor_memory(tmp_path, name):
    path = tmp_path / "bomb.pkl"
    path.write_bytes(BOMBS[name])
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ManifestError, match=r"bomb\.pkl: ") as caught:
        load_plain_pickle(path)
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 19  # KiB on Linux, so half a GiB
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_large_memo_index_reserves_no_memory(tmp_path):
    path = tmp_path / "memo.pkl"
    path.write_bytes(b"\x80\x02K\x01r\xff\xff\xff\x7f.")
    assert load_plain_pickle(path) == 1


def test_a_state_changes_no_function_of_the_reader(tmp_path):
    path = tmp_path / "state.pkl"
    path.write_bytes(b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb.")
    with pytest.raises(ManifestError, match=r"state.pkl: refused"):
        load_plain_pickle(path)


def test_text_of_python_2_with_bytes_above_ascii(tmp_path):
    path = tmp_path / "two.pkl"
    path.write_bytes(b"(dp0\nS'anno'\np1\nS'\\xe9\\x01'\np2\ns.")
    assert load_plain_pickle(path) == {"anno": "\xe9\x01"}
