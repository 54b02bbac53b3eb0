"""Chooses the four segments of each mosaic: a seeded, balanced draw.

Conventions: a segment is one audible second of a solo video, with one frame of it. Quadrants are numbered 0 top left, 1
top right, 2 bottom left, 3 bottom right. Shifts are in samples, gains are linear factors. The draw depends only on the
seed, the split's name and the pool of segments. The first k mosaics of a longer draw equal a draw of k.

Follows the paper that introduced the dataset: four different instruments, two of the four sounds mixed "with
jittering", balanced instruments. The paper gives no numbers; those here are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.common.errors import ManifestError
from pipeline.datasets.music.boxes import Corners

_Name = TypeVar("_Name")

N_ITEMS = 4  # segments in a mosaic
N_SOUNDING = 2  # how many of them sound
GAIN_RANGE = (0.8, 1.25)  # ours: about ± 2 dB


@dataclass(frozen=True)
class Segment:
    """One audible second of a solo video, and the frame that represents it."""

    video: str
    instrument: str
    second: int
    row: int  # of its frame in the cut video
    frame_s: float  # timestamp of the frame in the video
    boxes: tuple[Corners, ...] = ()  # of the instrument in that frame; empty if not annotated


@dataclass(frozen=True)
class Item:
    """A segment's role in a mosaic."""

    segment: Segment
    sounding: bool
    gain: float  # 0 if silent
    shift: int  # delay of its audio in samples; 0 if silent


@dataclass(frozen=True)
class Mosaic:
    """One clip of the dataset. The index of an item is its quadrant."""

    clip_id: str
    items: tuple[Item, ...]

    @property
    def label(self) -> str:
        """The sounding instruments, sorted, joined by ``+``."""
        return "+".join(sorted(item.segment.instrument for item in self.items if item.sounding))


def draw_mosaics(
    segments: Sequence[Segment], *, split: str, count: int, seed: int, max_shift: int, needs_boxes: bool
) -> list[Mosaic]:
    """Draw `count` mosaics of four different instruments from four different videos, two of them sounding.

    The sounding instruments are the two that have sounded least so far. The silent ones are the two of the rest that
    have been silent least. Ties are broken at random. Over the split, each instrument therefore sounds equally often, to
    within one. For each instrument, first a video is drawn uniformly and then one of its seconds, so that long videos do
    not dominate (ours).

    Parameters
    ----------
    segments : sequence of Segment
        The split's pool.
    split : str
        ``train`` or ``test``; the prefix of the clip ids.
    count : int
        Number of mosaics to draw.
    seed : int
        Seed of the draw.
    max_shift : int
        Audio is shifted by a uniformly drawn number of samples in [-max_shift, max_shift].
    needs_boxes : bool
        Draw sounding items only from segments with boxes, as test clips require.

    Returns
    -------
    list of Mosaic
        In the order of their ids.

    Raises
    ------
    ManifestError
        There are fewer than four instruments, or fewer than two that can sound.
    """
    every = _by_instrument(segments)
    can_sound = _by_instrument([segment for segment in segments if segment.boxes]) if needs_boxes else every
    check_pool(every.keys(), can_sound.keys(), split=split, needs_boxes=needs_boxes)
    rng = np.random.default_rng([seed, *split.encode()])
    sounded: Counter[str] = Counter()
    silenced: Counter[str] = Counter()
    mosaics = []
    for index in range(count):
        sounding = least_used(sorted(can_sound), sounded, N_SOUNDING, rng)
        silent = least_used(sorted(every.keys() - set(sounding)), silenced, N_ITEMS - N_SOUNDING, rng)
        items = [_sounding_item(_draw_segment(can_sound[name], rng), max_shift, rng) for name in sounding]
        items += [Item(_draw_segment(every[name], rng), sounding=False, gain=0.0, shift=0) for name in silent]
        order = rng.permutation(N_ITEMS)
        mosaics.append(Mosaic(f"{split}-{index:06d}", tuple(items[position] for position in order)))
    return mosaics


def check_pool(
    instruments: Collection[str],
    can_sound: Collection[str],
    *,
    split: str,
    needs_boxes: bool,
) -> None:
    """Raise ManifestError if there are fewer than four instruments, or fewer than two that can sound."""
    if len(instruments) < N_ITEMS:
        raise ManifestError(
            f"{split}: a mosaic needs videos of {N_ITEMS} different instruments, but there are usable videos of only "
            f"{len(instruments)} ({', '.join(sorted(instruments)) or 'none'}). Add solo videos, or change the split by "
            "video"
        )
    if len(can_sound) < N_SOUNDING:
        boxes = " with boxes" if needs_boxes else ""
        raise ManifestError(
            f"{split}: {N_SOUNDING} instruments of a mosaic sound, but there are usable videos{boxes} of only "
            f"{len(can_sound)} ({', '.join(sorted(can_sound)) or 'none'}). Annotate more instruments, or add their videos"
        )


def _by_instrument(segments: Sequence[Segment]) -> dict[str, list[list[Segment]]]:
    """Group segments as instrument → videos → segments. All are sorted, so that input order does not affect the draw."""
    grouped: dict[str, dict[str, list[Segment]]] = {}
    for segment in sorted(segments, key=lambda segment: (segment.instrument, segment.video, segment.second)):
        grouped.setdefault(segment.instrument, {}).setdefault(segment.video, []).append(segment)
    return {instrument: list(videos.values()) for instrument, videos in grouped.items()}


def least_used(names: Sequence[_Name], used: Counter[_Name], count: int, rng: np.random.Generator) -> list[_Name]:
    """Choose the `count` least used of `names`, breaking ties at random, and update `used`."""
    order = rng.permutation(len(names))
    # sorted() is stable, so the permutation decides among equally used names.
    chosen = sorted((names[position] for position in order), key=lambda name: used[name])[:count]
    used.update(chosen)
    return chosen


def _draw_segment(videos: Sequence[Sequence[Segment]], rng: np.random.Generator) -> Segment:
    seconds = videos[int(rng.integers(len(videos)))]
    return seconds[int(rng.integers(len(seconds)))]


def _sounding_item(segment: Segment, max_shift: int, rng: np.random.Generator) -> Item:
    gain = round(float(rng.uniform(*GAIN_RANGE)), 6)  # the precision of mosaics.csv, which must reproduce the mix
    return Item(segment, sounding=True, gain=gain, shift=int(rng.integers(-max_shift, max_shift + 1)))
