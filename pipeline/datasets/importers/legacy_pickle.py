"""Reads old annotation pickles without executing code from them.

A pickle is a program. This reader supports only the few calls that plain containers and NumPy arrays require, and
replaces even those with its own: no function named in a file is ever looked up or called. The result consists of dict,
list, str, int, float, bool, None, and arrays of numbers or strings. Anything else is an error.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import ManifestError

_PLAIN_DTYPE = re.compile(r"[<>=|]?([biufcSU]\d+|\?)")
_MAX_DEPTH = 20


class _DType:
    """Replaces `numpy.dtype`: stores the type code, and the byte order from its state."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("array of a structured type")
        self.dtype = self.dtype if order == "|" else self.dtype.newbyteorder(order)


class _Array:
    """Replaces `numpy.ndarray`: built only from shape, type and raw bytes."""

    value: np.ndarray

    def __init__(self, *_: object) -> None:
        """Ignore the constructor's arguments; `__setstate__` receives everything that is needed."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, in_columns, raw = state
        self.value = _array(raw, dtype, shape, "F" if in_columns else "C")


def _array(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    if isinstance(raw, str):
        raw = raw.encode("latin-1")  # a byte string of Python 2
    if not isinstance(raw, (bytes, bytearray)) or not isinstance(dtype, _DType) or order not in ("C", "F"):
        raise pickle.UnpicklingError("array of objects")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise pickle.UnpicklingError(f"array of shape {shape!r}")
    return np.frombuffer(bytes(raw), dtype=dtype.dtype).reshape(shape, order="F" if order == "F" else "C").copy()


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.value = _array(raw, dtype, shape, order)
    return array


def _scalar(dtype: object, raw: object) -> _Array:
    return _from_buffer(raw, dtype, (), "C")


def _latin_bytes(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    return b""  # old protocols store the content of an empty array as a call of bytes()


# The names in pickles of old and new NumPy versions, and their replacements.
_STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _latin_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a reference to an object outside the file")


def load_plain_pickle(path: Path) -> Any:
    """Read a pickle of plain containers and NumPy arrays of numbers or strings.

    Returns
    -------
    dict, list, str, int, float, bool, None or np.ndarray
        Containers nested at most 20 deep; tuples are returned as lists.

    Raises
    ------
    ManifestError
        The file is missing, damaged, or contains or calls anything else, which the message names.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file; check the path") from None
    try:
        return _plain(_Unpickler(io.BytesIO(content), encoding="latin1").load())
    except pickle.UnpicklingError as error:
        raise ManifestError(f"{path}: refused: contains {error}; only plain values and arrays are allowed") from None
    except Exception as error:  # a damaged pickle can raise nearly any exception
        raise ManifestError(f"{path}: cannot be read as a pickle ({type(error).__name__}: {error})") from None


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        raise pickle.UnpicklingError("containers nested too deeply")
    if type(value) is dict:
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_plain(item, depth + 1) for item in value]
    if type(value) is _Array:
        return value.value
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__}")
