"""File formats that can be used without this program: TorchScript and ONNX.

Conventions
-----------
Inputs are ``frames`` uint8 (n, 3, S, S) RGB, S the model's image size, and ``log_mel`` float32 (n, mel, time); outputs are
``response`` float32 (n, h, w), R before normalization, and ``audio_embedding`` float32 (n, d), a, of unit length. The batch
size n is free, all other sizes are fixed. Frames are uint8, so that frames scaled to 0..1 are an error instead of a wrong
map; TorchScript also accepts floats in 0..255.

Both files contain *facts*, a flat mapping of names to values that describes the model: TorchScript as JSON in the extra
file ``soundspot.json``, ONNX as metadata properties, each a string or JSON.

Both formats are produced by tracing. Control flow that depends on a model's weights (MSSL and DSOL use a different map in
their second stage) is resolved by a trace but rejected by `torch.export`, which is also ten times slower. PyTorch does not
guarantee that newer versions can load ``.pt2`` files. TorchScript is deprecated, but loads in every torch version that we
support, and in C++. The tracing ONNX exporter is available in all of them too, and does not need onnxscript. Whether a
trace generalizes to other inputs is verified: see `pipeline.apps.export.export`.
"""

from __future__ import annotations

import copy
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
OPSET = 17  # our choice: from 2022, so it is widely supported, and it has all required operators

Arrays = tuple[np.ndarray, np.ndarray]
Runner = Callable[[np.ndarray, np.ndarray], Arrays]


class Exportable(nn.Module):
    """A model as one function: (frames, log_mel) → (response, audio_embedding).

    Parameters
    ----------
    model : TrainedModel
        In evaluation mode; copied.
    frames, log_mel : Tensor
        Example inputs, for their sizes.
    """

    def __init__(self, model: TrainedModel, frames: Tensor, log_mel: Tensor) -> None:
        super().__init__()
        self.encoders = copy.deepcopy(model.encoders)
        for backbone, images in ((self.encoders.visual, frames), (self.encoders.audio, log_mel)):
            backbone.fix_size(*images.shape[-2:])
        self.method = model.method

    def forward(self, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as `TrainedModel.localize`."""
        return self.method.localize(self.encoders, frames, log_mel)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    title : str
    endings : tuple of str
        Allowed file extensions.
    write : callable
        (path, model, example inputs, facts) → the facts as written.
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
    """Write TorchScript. `example` is a batch of inputs with more than one clip."""
    written = {**facts, "torch": torch.__version__}
    with _quiet_trace():
        # torch's own check runs the same inputs again. `export` compares the outputs for other inputs and batch sizes.
        traced = torch.jit.trace(model, example, check_trace=False)
        # Save to memory first: torch stores the file name inside the file, which would make its bytes depend on the path.
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer, _extra_files={FACTS_FILE: json.dumps(written, indent=2)})
    _copy_without_sources(buffer, path)
    return written


def _copy_without_sources(archive: io.BytesIO, path: Path) -> None:
    # torch stores the source file and line of every operation. These are absolute paths, useless elsewhere and private.
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as kept:
        for entry in whole.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(entry.filename), whole.read(entry))


def open_torch(path: Path) -> Runner:
    """Load TorchScript on the CPU."""
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
    """Write ONNX. Raises ExportError if its packages are missing."""
    onnx = _package("onnx")
    buffer: Any = io.BytesIO()  # accepted by this exporter, although its signature does not allow it
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
        # The exporter infers some map shapes only partly and leaves symbolic names.
        for dimension, size in zip(port.type.tensor_type.shape.dim[1:], output.shape[1:], strict=True):
            dimension.dim_value = size
    written = {**facts, "torch": torch.__version__, "opset": OPSET}
    onnx.helper.set_model_props(graph, {name: _as_text(value) for name, value in written.items()})
    graph.doc_string = "Localizes the source of a sound in a frame; the metadata describes the preprocessing."
    onnx.checker.check_model(graph, full_check=True)
    # Protobuf does not guarantee the order of map entries otherwise, and equal models should give equal bytes.
    path.write_bytes(graph.SerializeToString(deterministic=True))
    return written


def open_onnx(path: Path) -> Runner:
    """Load ONNX with onnxruntime on the CPU. Raises ExportError if the package is missing."""
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
            f"ONNX requires the package {name}, which cannot be imported ({error}); pip install -e '.[export]'"
        ) from None


@contextmanager
def _quiet_trace() -> Iterator[None]:
    # Where an operator cannot be exported, it prints the whole graph to stdout before it raises.
    log = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *values: None
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Ignore warnings that branches become constants, which is intended, and that tracing is deprecated.
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_onnx_log = log
