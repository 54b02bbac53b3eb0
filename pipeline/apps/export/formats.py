"""A trained model as a file that opens without this program: TorchScript or ONNX.

Conventions
-----------
Inputs are ``frames`` uint8 (n, 3, S, S) RGB, S the model's image size, and ``log_mel`` float32 (n, mel, time); outputs are
``response`` float32 (n, h, w), R before it is normalized, and ``audio_embedding`` float32 (n, d), a of length 1. n may be any
number, all else is fixed. uint8, since frames in 0..1 would then be an error and not a wrong map; TorchScript takes floats in
0..255 as well.

Both files hold *facts*, a flat mapping of names to values, so that they describe themselves: TorchScript as JSON in the extra file
``soundspot.json``, ONNX as metadata properties, each a string or JSON.

Why these two, and both from a trace: a trace follows what the weights of a finished model decide (MSSL and DSOL read another
map in their second stage), which `torch.export` refuses, and is made ten times as fast. Of ``.pt2`` files torch says
itself that newer versions may not open them; TorchScript, although deprecated, opens with every torch of our range, in C++, too.
The tracing ONNX exporter is the same in all of that range, and needs no onnxscript. That a trace holds for other inputs than
the one it saw is not believed but measured: see `pipeline.apps.export.export`.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.common.errors import ExportError
from pipeline.methods.trained_model import TrainedModel

INPUTS = ("frames", "log_mel")
OUTPUTS = ("response", "audio_embedding")
FACTS_FILE = "soundspot.json"
OPSET = 17  # ours: of 2022, so that runtimes of the last years open it, and it has all that is needed

Arrays = tuple[np.ndarray, np.ndarray]
Runner = Callable[[np.ndarray, np.ndarray], Arrays]


class Exportable(nn.Module):
    """A model as one function: (frames, log_mel) → (response, audio_embedding).

    Parameters
    ----------
    model : TrainedModel
        In evaluation mode.
    """

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.encoders = model.encoders
        self.method = model.method

    def forward(self, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `TrainedModel.localize` returns."""
        return self.method.localize(self.encoders, frames, log_mel)


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes
    ----------
    title : str
    endings : tuple of str
        That a file of it may have.
    write : callable
        (path, model, example inputs, facts) → the facts as they were written.
    open : callable
        path → a function from (frames, log_mel) to (response, audio_embedding), all NumPy arrays.
    """

    title: str
    endings: tuple[str, ...]
    write: Callable[[Path, Exportable, tuple[Tensor, Tensor], Mapping[str, Any]], dict[str, Any]]
    open: Callable[[Path], Runner]


def write_torch(
    path: Path, model: Exportable, example: tuple[Tensor, Tensor], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write TorchScript. `example` is a pair of inputs, of more than one clip."""
    written = {**facts, "torch": torch.__version__}
    with _quiet_trace():
        traced = torch.jit.trace(model, example, check_trace=False)
        # Through memory: torch would write the file's name into the file.
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer, _extra_files={FACTS_FILE: json.dumps(written, indent=2)})
    _copy_without_sources(buffer, path)
    return written


def _copy_without_sources(archive: io.BytesIO, path: Path) -> None:
    # torch notes for every operation which line of which file it came from: absolute paths, of no use elsewhere.
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as kept:
        for entry in whole.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(entry.filename), whole.read(entry))


def open_torch(path: Path) -> Runner:
    """Open TorchScript on the CPU."""
    with _quiet_trace():
        loaded = torch.jit.load(str(path), map_location="cpu")

    def run(frames: np.ndarray, log_mel: np.ndarray) -> Arrays:
        with torch.no_grad():
            response, audio = loaded(torch.from_numpy(frames), torch.from_numpy(log_mel))
        return response.numpy(), audio.numpy()

    return run


def write_onnx(
    path: Path, model: Exportable, example: tuple[Tensor, Tensor], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ONNX. Raises ExportError where its packages are missing."""
    onnx = _package("onnx")
    buffer: Any = io.BytesIO()  # which this exporter takes, though its signature does not say so
    with _quiet_trace():
        torch.onnx.export(
            model,
            example,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "n"} for name in (*INPUTS, *OUTPUTS)},
        )
        outputs = model(*example)
    graph = onnx.load_model_from_string(buffer.getvalue())
    for port, output in zip(graph.graph.output, outputs, strict=True):
        # The exporter infers the shape of some maps only in part, and names what it cannot.
        for dimension, size in zip(port.type.tensor_type.shape.dim[1:], output.shape[1:], strict=True):
            dimension.dim_value = size
    written = {**facts, "torch": torch.__version__, "opset": OPSET}
    onnx.helper.set_model_props(graph, {name: _as_text(value) for name, value in written.items()})
    graph.doc_string = "Where in a frame a sound comes from; the metadata say how to prepare the inputs."
    onnx.checker.check_model(graph, full_check=True)
    path.write_bytes(graph.SerializeToString(deterministic=True))
    return written


def open_onnx(path: Path) -> Runner:
    """Open ONNX with onnxruntime on the CPU. Raises ExportError where the package is missing."""
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(frames: np.ndarray, log_mel: np.ndarray) -> Arrays:
        response, audio = session.run(list(OUTPUTS), dict(zip(INPUTS, (frames, log_mel), strict=True)))
        return response, audio

    return run


FORMATS = {
    "onnx": Format("ONNX", (".onnx",), write_onnx, open_onnx),
    "torch": Format("TorchScript", (".pt", ".ts", ".torchscript"), write_torch, open_torch),
}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ExportError(
            f"ONNX needs the package {name}, which cannot be imported ({error}); pip install -e '.[export]'"
        ) from None


@contextmanager
def _quiet_trace() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        # That Python's branches become constants is what we want, and that tracing is deprecated stands above.
        warnings.simplefilter("ignore")
        yield
