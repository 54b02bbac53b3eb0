"""Arrays and maps as the page's script reads them: bytes in base64, and the weights that upsample a map."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.labels import label_of
from pipeline.scoring.protocols import ScoringProtocol
from pipeline.scoring.upsampling import upsampling_matrix


def upsampling_weights(protocol: ScoringProtocol, shapes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return the protocol's grid size, and for every side of these map shapes the weights (size, side) that upsample it."""
    sides = sorted({side for shape in shapes for side in shape})
    matrices = {
        str(side): upsampling_matrix(
            side, protocol.size, interpolation=protocol.interpolation, align_corners=protocol.align_corners
        )
        for side in sides
    }
    return {"size": protocol.size, "matrices": {side: array_base64(weights) for side, weights in matrices.items()}}


def method_entry(name: str, shape: tuple[int, ...], epochs: Sequence[int]) -> dict[str, Any]:
    """Return a gallery's entry of one method: names, map shape (row, col), and the epochs of its maps."""
    return {"name": name, "label": label_of(name), "rows": shape[0], "columns": shape[1], "epochs": list(epochs)}


def map_base64(cells: np.ndarray) -> str:
    """Return a map in [0, 1] as bytes 0 … 255."""
    # One byte per cell keeps the page small, and the colormap has 256 colors anyway.
    return array_base64(np.rint(255 * np.clip(cells, 0, 1)).astype(np.uint8))


def array_base64(values: np.ndarray) -> str:
    """Return an array's bytes, little-endian, row by row."""
    # The script reads little-endian values whatever the machine.
    little = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")


def map_change(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean absolute difference of two upsampled maps."""
    return round(float(np.abs(np.clip(before, 0, 1) - np.clip(after, 0, 1)).mean(dtype=np.float64)), 5)
