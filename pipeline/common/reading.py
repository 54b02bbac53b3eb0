"""Readers of text formats, with limits: JSON, YAML, XML and NumPy arrays. For CSV: `tables`.

Conventions
-----------
- Text is UTF-8, with or without a byte-order mark.
- Every reader takes the class of error to raise. The message names the file, what is wrong and, if known, the line.
- Size, nesting, the length of numbers and what YAML aliases expand to are limited, so that a small file cannot take much time or
  memory. The limits, all ours, are at least ten times what published lists and our own files need.
- YAML has only the types of JSON: a date without quotes, which PyYAML would convert, is an error.
- NaN and infinity are errors, because no format of this project has them.
"""

from __future__ import annotations

import codecs
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import yaml

from pipeline.common.access import raise_if_access_error
from pipeline.common.errors import SoundspotError

_MAX_BYTES = 32 << 20
_MAX_YAML_BYTES = 256 << 10  # params.yaml has 8 KiB
_MAX_YAML_NODES = 20_000  # params.yaml has 700; PyYAML composes 20,000 in about a second
_MAX_XML_BYTES = 4 << 20
_MAX_DEPTH = 32
_MAX_DIGITS = 300  # of a number, so that it is also a finite float
_NULL = "contains null characters; not a text file, or not UTF-8"

Error = type[SoundspotError]


def read_bytes(path: Path, error: Error, *, limit: int = _MAX_BYTES) -> bytes:
    """Return the content of a file of at most `limit` bytes. Raises `error`, or AccessError if the system cannot read it."""
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise error(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise error(f"{path}: is a folder, expected a file") from None
    except (OSError, ValueError) as problem:  # ValueError: the path contains a null character
        raise_if_access_error(path, problem)
        raise error(f"{path}: cannot be read: {problem}") from None
    if len(content) > limit:
        raise error(
            f"{path}: larger than {limit >> 10} KiB, the limit for this kind of file; check that it is the right one"
        )
    return content


def read_text(path: Path, error: Error, *, limit: int = _MAX_BYTES) -> str:
    """Return the text of a file of at most `limit` bytes. Raises as `read_bytes` does, and `error` if it is not text."""
    content = read_bytes(path, error, limit=limit)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: {not_utf8(content[:2], problem)}") from None
    if "\0" in text:
        raise error(f"{path}: {_NULL}")
    return text


def not_utf8(start: bytes, problem: UnicodeDecodeError) -> str:
    """Return why the text of a file, which begins with `start`, cannot be decoded."""
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "UTF-16 text; save it as UTF-8"
    return f"not UTF-8 text ({problem.reason} at byte {problem.start}); save it as UTF-8"


def read_json(path: Path, error: Error) -> Any:
    """Read a JSON file. Raises as `read_text` does, and `error` if it is not JSON or exceeds a limit."""
    return parse_json(read_text(path, error), str(path), error)


def parse_json(text: str, where: str, error: Error) -> Any:
    """Parse JSON. Raises `error`, whose message starts with `where`."""
    try:
        return checked(json.loads(text, parse_int=_integer))
    except json.JSONDecodeError as problem:
        raise error(f"{where}:{problem.lineno}: not JSON: {problem.msg}") from None
    except RecursionError:
        raise error(f"{where}: not usable as JSON: nested more than {_MAX_DEPTH} deep") from None
    except (ValueError, TypeError) as problem:
        raise error(f"{where}: not usable as JSON: {problem}") from None


def read_yaml(path: Path, error: Error) -> Any:
    """Read a YAML file of numbers, strings, booleans, null, lists and mappings. Raises as `read_json` does."""
    return parse_yaml(read_text(path, error, limit=_MAX_YAML_BYTES), str(path), error)


def parse_yaml(text: str, where: str, error: Error) -> Any:
    """Parse YAML. Raises `error`, whose message starts with `where`."""
    if len(text) > _MAX_YAML_BYTES:
        raise error(f"{where}: larger than {_MAX_YAML_BYTES >> 10} KiB, the limit for YAML")
    try:
        return checked(yaml.load(text, Loader=_Loader))
    except RecursionError:
        raise error(f"{where}: not readable as YAML: nested more than {_MAX_DEPTH} deep") from None
    except Exception as problem:  # PyYAML lets through whatever an odd scalar or tag makes Python raise
        reason = " ".join(str(problem).replace('in "<unicode string>", ', "").split())
        raise error(f"{where}: not readable as YAML: {reason}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with limits on nesting and on the number of nodes, aliases expanded, and without dates and binary data."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._n_nodes = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and count it with its children. An alias counts as often as it is used."""
        is_alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark
        before = self._n_nodes
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {_MAX_DEPTH} deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.MarkedYAMLError(problem="an alias inside its own anchor", problem_mark=mark)
        self._n_nodes += self._sizes[id(node)] if is_alias else 1
        if self._n_nodes > _MAX_YAML_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {_MAX_YAML_NODES} values", problem_mark=mark)
        if not is_alias:
            self._sizes[id(node)] = self._n_nodes - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping without duplicate keys, of which PyYAML would silently keep the last."""
        node = super().compose_mapping_node(anchor)
        keys: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in keys:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {key.value[:40]!r}", problem_mark=key.start_mark)
            keys.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value of one of the types of JSON."""
        kind = node.tag.rsplit(":", 1)[-1]
        problem = ""
        if kind not in ("str", "int", "float", "bool", "null", "map", "seq", "merge", "value"):
            name = "date" if kind == "timestamp" else kind
            problem = f"{name} {str(node.value)[:40]!r} is no number, string, list or mapping; put text into quotes"
        elif kind in ("int", "float") and len(node.value) > _MAX_DIGITS:
            problem = f"a number of {len(node.value)} characters"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_object(node, deep=deep)


def read_xml(path: Path, error: Error) -> ElementTree.Element:
    """Read an XML file without entities of its own. Raises as `read_bytes` does, and `error` if it is not XML or exceeds a limit."""
    content = read_bytes(path, error, limit=_MAX_XML_BYTES)
    depth = 0

    def start(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep")

    def end(_: object) -> None:
        nonlocal depth
        depth -= 1

    def refuse(*_: object) -> None:
        raise ValueError("declares entities or default attributes")

    # ElementTree expands entities and default attributes, and deep trees exhaust the stack; expat alone finds all of these before
    # anything is built.
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = parser.AttlistDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        parser.Parse(content, True)
        return ElementTree.fromstring(content)
    # LookupError: unknown encoding. ValueError: from above, or of an encoding that expat does not support.
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as problem:
        raise error(f"{path}: cannot be read as XML: {problem}") from None


def read_array(path: Path, error: Error) -> np.ndarray:
    """Read an array of numbers or strings from a ``.npy`` file. Raises `error`, or AccessError if the system cannot read it."""
    try:
        # Mapped first, because the header may claim far more data than the file has.
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    except FileNotFoundError:
        raise error(f"{path}: no such file; check the path") from None
    except Exception as problem:  # the header is a Python literal, and an odd one raises nearly anything
        raise_if_access_error(path, problem)
        raise error(f"{path}: cannot be read as a plain NumPy array: {problem}") from None


def checked(value: Any, depth: int = 0) -> Any:
    """Return a JSON-like value. Raises ValueError if it is nested too deeply or has a key or number that JSON has not."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, float) and not math.isfinite(key):
                raise ValueError(f"{key} is not finite")
            checked(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            checked(item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return value


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
