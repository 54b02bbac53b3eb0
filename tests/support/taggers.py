"""Tiny audio taggers in ONNX and TFLite files, whose outputs have closed forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SINE_MEAN = 2 / np.pi  # mean magnitude of a sine of amplitude 1


def sharpness(frequency: float, rate: int) -> float:
    """Return half the mean magnitude of the difference between samples, for a long sine of amplitude 1."""
    return float(SINE_MEAN * np.sin(np.pi * frequency / rate))


def write_onnx_tagger(
    path: Path, shape: Sequence[int | str], *, scale: float = 1.0, metadata: dict[str, str] | None = None
) -> Path:
    """Write a tagger of a waveform: outputs ``embedding`` (…, 3), zeros, and ``tags`` (…, 2): the mean magnitude of the samples, and
    `sharpness`, both times `scale`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    axis = len(shape) - 1
    whole = {"begin": [1], "end": [2**31], "start": [0], "last": [-1], "axis": [axis]}
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in whole.items()]
    scalars = {"half": 0.5, "scale": scale, "zeros": np.zeros(3)}
    constants += [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in scalars.items()]
    node = helper.make_node
    nodes = [
        node("Abs", ["waveform"], ["magnitude"]),
        node("ReduceMean", ["magnitude", "axis"], ["loud"], keepdims=1),
        node("Slice", ["waveform", "begin", "end", "axis"], ["later"]),
        node("Slice", ["waveform", "start", "last", "axis"], ["earlier"]),
        node("Sub", ["later", "earlier"], ["difference"]),
        node("Abs", ["difference"], ["steps"]),
        node("ReduceMean", ["steps", "axis"], ["step"], keepdims=1),
        node("Mul", ["step", "half"], ["sharp"]),
        node("Concat", ["loud", "sharp"], ["both"], axis=axis),
        node("Mul", ["both", "scale"], ["tags"]),
        node("Mul", ["loud", "zeros"], ["embedding"]),
    ]
    floats = TensorProto.FLOAT
    leading = list(shape[:-1])
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("waveform", floats, list(shape))],
        [
            helper.make_tensor_value_info("embedding", floats, [*leading, 3]),
            helper.make_tensor_value_info("tags", floats, [*leading, 2]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def write_dense_tflite(path: Path, weights: np.ndarray, bias: np.ndarray) -> Path:
    """Write a tagger of a waveform (1, samples) of fixed length: the sigmoid of weights (tag, samples) · waveform + bias (tag,)."""
    n_tags, length = weights.shape
    return _write_tflite(
        path,
        [([1, length], None), ([n_tags, length], weights), ([n_tags], bias), ([1, n_tags], None), ([1, n_tags], None)],
        [("FULLY_CONNECTED", [0, 1, 2], [3]), ("LOGISTIC", [3], [4])],
        output=4,
    )


def write_mean_tflite(path: Path) -> Path:
    """Write a tagger of a waveform (samples,) of any length, with one tag: its mean magnitude."""
    return _write_tflite(
        path,
        [([1], None), ([1], None), ([1], np.zeros(1, np.int32)), ([1], None)],
        [("ABS", [0], [1]), ("MEAN", [1, 2], [3])],
        output=3,
    )


def _write_tflite(
    path: Path,
    tensors: list[tuple[list[int], np.ndarray | None]],
    operators: list[tuple[str, list[int], list[int]]],
    *,
    output: int,
) -> Path:
    """Write a model whose first tensor is the input; a tensor without values is computed."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = 3, "tagger"
    model.buffers, graph.tensors, model.operatorCodes, graph.operators = [schema.BufferT()], [], [], []
    for number, (shape, values) in enumerate(tensors):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"tensor{number}", shape, 0
        integers = values is not None and values.dtype == np.int32
        tensor.type = schema.TensorType.INT32 if integers else schema.TensorType.FLOAT32
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.astype(np.int32 if integers else np.float32).tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    options: dict[str, Any] = {"FULLY_CONNECTED": schema.FullyConnectedOptionsT, "MEAN": schema.ReducerOptionsT}
    for number, (name, inputs, outputs) in enumerate(operators):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        operator.opcodeIndex, operator.inputs, operator.outputs = number, inputs, outputs
        if name in options:
            operator.builtinOptions = options[name]()
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options[name].__name__.removesuffix("T"))
            if name == "MEAN":
                operator.builtinOptions.keepDims = True
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    graph.inputs, graph.outputs, graph.name = [0], [output], "main"
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
