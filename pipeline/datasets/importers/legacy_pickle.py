"""Reads old annotation pickles without executing code from them.

A pickle is a program. This reader supports only the few calls that plain containers and NumPy arrays require, and
replaces even those with its own: no function named in a file is ever looked up or called. The result consists of dict,
list, str, int, float, bool, None, and arrays of numbers or strings. Anything else is an error.

A pickle of a few hundred bytes can also ask for terabytes of memory or for years of work, by values that contain each other
many times. The reader therefore executes only listed instructions, in pure Python, and counts what they cost.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import ManifestError
from pipeline.common.reading import read_bytes

_PLAIN_DTYPE = re.compile(r"[<>=|]?([biufcSU]\d+|\?)")
_MAX_DEPTH = 20
_MAX_BYTES = 16 << 20
# Ours. What may be spent on instructions, on values, and on each 64 bytes of a text or an array: in proportion to the size of
# the file, so that a small one cannot take long. A published file of 5,000 records has 2.4 MB and costs 700,000.
_BASE_BUDGET, _MAX_BUDGET = 10_000, 4_000_000
_MAX_ARGUMENTS = 8  # of a call; NumPy's have at most 5
_MAX_KEY, _MAX_NUMBER = 1 << 32, 1 << 64  # larger keys could be chosen so that all are in one slot of a dict
_MAX_SHOWN = 100  # characters of a name or of an error from the file
_INSTRUCTIONS = (
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS "
    "GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD"
)


class _DType:
    """Replaces `numpy.dtype`: stores the type code, and the byte order from its state."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"array of type {_shown(code)}")
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
        raise pickle.UnpicklingError("array of an impossible shape")
    return np.frombuffer(bytes(raw), dtype=dtype.dtype).reshape(shape, order="F" if order == "F" else "C").copy()


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.value = _array(raw, dtype, shape, order)
    return array


def _scalar(dtype: object, raw: object) -> _Array:
    return _from_buffer(raw, dtype, (), "C")


def _latin_bytes(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text in {_shown(encoding)}")
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


class _Unpickler(pickle._Unpickler):  # the one in Python, whose table of instructions can be restricted
    stack: list[Any]
    metastack: list[list[Any]]

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._left = min(_BASE_BUDGET + len(content), _MAX_BUDGET)

    def spend(self, cost: int = 1) -> None:
        """Count the cost of an instruction or a value. Raises UnpicklingError when the budget is used up."""
        self._left -= cost
        if self._left < 0:
            raise pickle.UnpicklingError("more values than this reader accepts")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"{module}.{name}"[:_MAX_SHOWN])
        return _STAND_INS[module, name]

    def check_call(self) -> None:
        """Check the arguments of a call, or the state of an array, on top of the stack."""
        arguments = self.stack[-1]
        if type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
            raise pickle.UnpicklingError("a call with other arguments than NumPy's")
        for argument in arguments:
            self.spend(_cost(argument))

    def check_state(self) -> None:
        """Check that a state is for an array or its type. Anything else would get attributes, our functions included."""
        if type(self.stack[-2]) not in (_Array, _DType):
            raise pickle.UnpicklingError("a state for another value than an array")
        self.check_call()

    def check_item(self) -> None:
        """Check the key and the value on top of the stack, and the dict below them."""
        self._check_dict(self.stack[-3], [self.stack[-2]])

    def check_items(self) -> None:
        """Check the items since the mark, and the dict below it, which is on the stack that the mark put aside."""
        self._check_dict(self.metastack[-1][-1], self.stack[::2])

    def check_new_dict(self) -> None:
        """Check the items since the mark."""
        self._check_dict({}, self.stack[::2])

    def _check_dict(self, target: Any, keys: list[Any]) -> None:
        # The hash of a tuple takes exponential time if its items contain each other.
        for key in keys:
            if not (type(key) is str or (type(key) in (int, bool) and abs(key) < _MAX_KEY)):
                raise pickle.UnpicklingError(
                    f"a dict with a {type(key).__name__} as key, or a number that is too large"
                )
        if type(target) is not dict:
            raise pickle.UnpicklingError("items for another value than a dict")


_CHECKS = {
    "REDUCE": _Unpickler.check_call,
    "BUILD": _Unpickler.check_state,
    "SETITEM": _Unpickler.check_item,
    "SETITEMS": _Unpickler.check_items,
    "DICT": _Unpickler.check_new_dict,
}


def _counted(name: str) -> Callable[[Any], None]:
    # A BYTEARRAY8 would reserve the memory that it claims before it reads.
    execute = pickle._Unpickler.dispatch[_code("BINBYTES8" if name == "BYTEARRAY8" else name)]
    check = _CHECKS.get(name, lambda _: None)

    def counted(unpickler: Any) -> None:
        unpickler.spend()
        check(unpickler)
        execute(unpickler)

    return counted


def _code(name: str) -> int:
    code: bytes = getattr(pickle, name)
    return code[0]


def _refused(name: str) -> Callable[[Any], None]:
    def refuse(_: Any) -> None:
        raise pickle.UnpicklingError(f"a {name.removeprefix('load_').removeprefix('empty_')}")

    return refuse


_Unpickler.dispatch = {
    **{code: _refused(function.__name__) for code, function in pickle._Unpickler.dispatch.items()},
    **{_code(name): _counted(name) for name in _INSTRUCTIONS.split()},
}


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
    unpickler = _Unpickler(read_bytes(path, ManifestError, limit=_MAX_BYTES))
    try:
        return _plain(unpickler.load(), unpickler.spend)
    except pickle.UnpicklingError as error:
        raise ManifestError(f"{path}: refused: contains {error}; only plain values and arrays are allowed") from None
    except Exception as error:  # a damaged pickle can raise nearly any exception
        reason = f"{type(error).__name__}: {error}"[:_MAX_SHOWN]
        raise ManifestError(f"{path}: cannot be read as a pickle ({reason})") from None


def _plain(value: Any, spend: Callable[[int], None], depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        raise pickle.UnpicklingError("containers nested too deeply")
    spend(_cost(value))
    if type(value) is dict:
        return {key: _plain(item, spend, depth + 1) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_plain(item, spend, depth + 1) for item in value]
    if type(value) is _Array:
        return value.value
    if type(value) is int and abs(value) >= _MAX_NUMBER:
        raise pickle.UnpicklingError("a number of more than 64 bits")
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__}")


def _cost(value: Any) -> int:
    if type(value) is _Array:
        return 1 + int(value.value.nbytes) // 64
    return 1 + len(value) // 64 if isinstance(value, (str, bytes)) else 1


def _shown(value: Any) -> str:
    # The representation of a container could take forever.
    return repr(value)[:_MAX_SHOWN] if isinstance(value, str) else f"a {type(value).__name__}"
