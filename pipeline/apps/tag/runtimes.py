"""Open models in ONNX and TFLite files.

Conventions
-----------
A model has one input, float32, and any number of outputs. A size that the file leaves open is None; so is a last size of 1 in TFLite,
with which converters mark a waveform of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.common.errors import PackageError, TaggingError
from pipeline.common.packages import load_package

Shape = tuple[int | None, ...]


class Runtime(Protocol):
    """An open model.

    Attributes
    ----------
    input_shape : tuple of int or None
    metadata : dict of str to str
        What the file says about itself.
    """

    input_shape: Shape
    metadata: dict[str, str]

    def run(self, values: np.ndarray) -> list[np.ndarray]:
        """Return all outputs for a float32 input of a shape that fits `input_shape`."""
        ...


class OnnxModel:
    """A model in an ``.onnx`` file, run on the CPU."""

    def __init__(self, path: Path) -> None:
        runtime = load_package("onnxruntime", purpose="this tagger", extra="tag")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # only fatal errors: others are raised
        options.intra_op_num_threads = 1  # there is one worker per core
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        port = _only(path, self._session.get_inputs())
        _check_type(path, port.type, "tensor(float)")
        self._name = port.name
        self.input_shape: Shape = tuple(size if isinstance(size, int) and size > 0 else None for size in port.shape)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, values: np.ndarray) -> list[np.ndarray]:
        """See `Runtime`."""
        return [np.asarray(each) for each in self._session.run(None, {self._name: values})]


class TfliteModel:
    """A model in a ``.tflite`` file, run on the CPU."""

    def __init__(self, path: Path) -> None:
        self._interpreter = load_package("ai_edge_litert.interpreter", purpose="this tagger", extra="tag").Interpreter(
            model_path=str(path), num_threads=1
        )
        port = _only(path, self._interpreter.get_input_details())
        _check_type(path, np.dtype(port["dtype"]).name, "float32")
        self._index = port["index"]
        sizes = [int(size) for size in port.get("shape_signature", port["shape"])]
        open_length = sizes[-1:] == [1]
        self.input_shape: Shape = tuple(
            None if size < 0 or (open_length and axis == len(sizes) - 1) else size for axis, size in enumerate(sizes)
        )
        self.metadata: dict[str, str] = {}
        self._shape: tuple[int, ...] | None = None

    def run(self, values: np.ndarray) -> list[np.ndarray]:
        """See `Runtime`."""
        if values.shape != self._shape:
            self._interpreter.resize_tensor_input(self._index, values.shape)
            self._interpreter.allocate_tensors()
            self._shape = values.shape
        self._interpreter.set_tensor(self._index, values)
        self._interpreter.invoke()
        # Copies, because the next call overwrites the tensors.
        return [
            np.array(self._interpreter.get_tensor(each["index"])) for each in self._interpreter.get_output_details()
        ]


_KINDS: dict[str, type[OnnxModel] | type[TfliteModel]] = {".onnx": OnnxModel, ".tflite": TfliteModel}


def open_model(path: Path) -> Runtime:
    """Open a model by its file extension.

    Raises
    ------
    TaggingError
        The file is missing, of another kind or damaged, or its input is not one float32 array.
    PackageError
        The package that runs it is not installed.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise TaggingError(f"{path}: not a model that can be run; pass a file {' or '.join(_KINDS)}")
    if not path.is_file():
        raise TaggingError(f"{path}: no such file; check the path")
    try:
        return kind(path)
    except (TaggingError, PackageError):
        raise
    except Exception as error:  # both runtimes raise errors of their own types
        raise TaggingError(
            f"{path}: cannot be opened ({_reason(error)}); it is damaged, or not {path.suffix}"
        ) from None


def run_model(model: Runtime, path: Path, values: np.ndarray) -> list[np.ndarray]:
    """Run a model. Raises TaggingError with its path if it fails."""
    try:
        return model.run(values)
    except Exception as error:
        raise TaggingError(f"{path}: fails on an input of shape {values.shape} ({_reason(error)})") from None


def _only(path: Path, ports: Sequence[Any]) -> Any:
    if len(ports) != 1:
        raise TaggingError(f"{path}: has {len(ports)} inputs; a tagger takes a waveform and nothing else")
    return ports[0]


def _check_type(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise TaggingError(f"{path}: its input is {found}, not {expected}; use the model before its quantization")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
