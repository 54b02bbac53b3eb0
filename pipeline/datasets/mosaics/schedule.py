"""Draws the photographs and recordings of each mosaic: seeded and balanced.

Conventions: cells are numbered row by row, 0 at the top left. The draw depends only on the seed, the split's name and the files.
The first k mosaics of a longer draw equal a draw of k. All of this is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.music.schedule import least_used


@dataclass(frozen=True)
class Cell:
    """One cell of a mosaic."""

    label: str
    photograph: int  # number of the file
    recording: int | None  # number of the file; None if the cell is silent


@dataclass(frozen=True)
class Mosaic:
    """One clip. The index of a cell is its place."""

    clip_id: str
    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        """The sounding classes, sorted, joined by ``+``."""
        return "+".join(sorted(cell.label for cell in self.cells if cell.recording is not None))


class _Deck:
    """Deals numbers in random order, and shuffles again only when all have been dealt."""

    def __init__(self, numbers: Sequence[int], rng: np.random.Generator) -> None:
        self._numbers, self._rng, self._left = list(numbers), rng, list[int]()

    def deal(self) -> int:
        if not self._left:
            self._left = [self._numbers[position] for position in self._rng.permutation(len(self._numbers))]
        return self._left.pop()


def draw_mosaics(
    photographs: Mapping[str, Sequence[int]],
    recordings: Mapping[str, Sequence[int]],
    *,
    split: str,
    count: int,
    seed: int,
    grid: int,
    sounding: int,
) -> list[Mosaic]:
    """Draw `count` mosaics of `grid`² classes, of which `sounding` sound.

    Over the split, classes sound equally often to within one, and so do cells; the files of a class are used equally often to
    within one. Silent classes are those that have been silent least among the others.

    Parameters
    ----------
    photographs, recordings : mapping of class to sequence of int
        Numbers of the files of each class, none empty; at least `grid`² classes.
    split : str
        The prefix of the clip ids.
    count, seed : int
    grid : int
        Cells along a side.
    sounding : int
        Cells that sound, at most `grid`².
    """
    rng = np.random.default_rng([seed, *split.encode()])
    labels, n_cells = sorted(photographs), grid * grid
    photograph_of = {label: _Deck(photographs[label], rng) for label in labels}
    recording_of = {label: _Deck(recordings[label], rng) for label in labels}
    sounded: Counter[str] = Counter()
    silenced: Counter[str] = Counter()
    used_cells: Counter[int] = Counter()
    mosaics = []
    for index in range(count):
        loud = least_used(labels, sounded, sounding, rng)
        silent = least_used([label for label in labels if label not in loud], silenced, n_cells - sounding, rng)
        places = least_used(range(n_cells), used_cells, sounding, rng)
        others = rng.permutation([place for place in range(n_cells) if place not in places]).tolist()
        cells = {
            place: Cell(label, photograph_of[label].deal(), recording_of[label].deal() if label in loud else None)
            for place, label in zip([*places, *others], [*loud, *silent], strict=True)
        }
        mosaics.append(Mosaic(f"{split}-{index:05d}", tuple(cells[place] for place in range(n_cells))))
    return mosaics
