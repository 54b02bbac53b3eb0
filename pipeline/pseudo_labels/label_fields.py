"""Sources of the arrays of pseudo-labels: a file, memory, or some rows of either.

Each source has `read_together`, which takes field names and rows (indices, a slice without a step, or None for all) and returns
float32 arrays by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Choice = np.ndarray | slice | None


class Fields(Protocol):
    """A source of arrays; `pipeline.pseudo_labels.hdf5_file.LabelFile` is one."""

    def read_together(self, names: Sequence[str], rows: Choice = None) -> dict[str, np.ndarray]:
        """Return the fields of some clips."""


@dataclass(frozen=True)
class ArrayFields:
    """Fields in memory, with the types of the file."""

    arrays: Mapping[str, np.ndarray]

    def read_together(self, names: Sequence[str], rows: Choice = None) -> dict[str, np.ndarray]:
        """Return the fields of some clips."""
        chosen = slice(None) if rows is None else rows
        return {name: self.arrays[name][chosen].astype(np.float32, copy=False) for name in names}


@dataclass(frozen=True)
class SomeRows:
    """A selection of rows of another source."""

    fields: Fields
    chosen: np.ndarray | slice

    def read_together(self, names: Sequence[str], rows: Choice = None) -> dict[str, np.ndarray]:
        """Return the fields of some of the selected clips."""
        if rows is None:
            return self.fields.read_together(names, self.chosen)
        if isinstance(self.chosen, slice):
            return self.fields.read_together(names, np.arange(self.chosen.start, self.chosen.stop)[rows])
        return self.fields.read_together(names, self.chosen[rows])
