"""Which four seconds make each mosaic: a seeded, balanced draw.

Conventions: a segment is one audible second of one solo video with one frame of it. Quadrants are numbered 0 top left,
1 top right, 2 bottom left, 3 bottom right. Shifts are in samples, gains are factors. The draw depends on the seed, the
split's name and the pool alone, and the first k mosaics of a longer draw are those of a draw of k.

The source is the text of the paper that introduced the set: four different instruments, two of the four sounds mixed
"with jittering", instruments balanced. It gives no numbers; those here are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.common.errors import ManifestError
from pipeline.datasets.music.boxes import Corners

N_ITEMS = 4  # seconds in a mosaic
N_SOUNDING = 2  # of them that are heard
GAIN_RANGE = (0.8, 1.25)  # ours: about ± 2 dB


@dataclass(frozen=True)
class Segment:
    """One audible second of a solo video, and the frame that stands for it."""

    video: str
    instrument: str
    second: int
    row: int  # of its frame in the cut video
    frame_s: float  # time of the frame in the video
    boxes: tuple[Corners, ...] = ()  # of the instrument in that frame; empty where nobody annotated it


@dataclass(frozen=True)
class Item:
    """A segment's part in a mosaic."""

    segment: Segment
    sounding: bool
    gain: float  # 0 for a silent one
    shift: int  # samples by which its sound comes late; 0 for a silent one


@dataclass(frozen=True)
class Mosaic:
    """One clip of the set. The position of an item is its quadrant."""

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

    The two sounding instruments are the ones that sounded least so far, the two silent ones those of the rest that
    were silent least, ties broken at random: over the split every instrument sounds equally often, to within one.
    Of an instrument a video is drawn uniformly, then one of its seconds, so that long videos do not dominate (ours).

    Parameters
    ----------
    segments : sequence of Segment
        All that the split may use.
    split : str
        ``train`` or ``test``; the prefix of the clip ids.
    count : int
        Mosaics to draw.
    seed : int
        Seed of the draw.
    max_shift : int
        Sounds are shifted by a uniform number of samples within ± this.
    needs_boxes : bool
        Whether sounding items must come from segments with boxes, as a test clip's must.

    Returns
    -------
    list of Mosaic
        In the order of their ids.

    Raises
    ------
    ManifestError
        Fewer than four instruments, or fewer than two that may sound.
    """
    every = _by_instrument(segments)
    heard = _by_instrument([segment for segment in segments if segment.boxes]) if needs_boxes else every
    check_pool(every.keys(), heard.keys(), split=split, needs_boxes=needs_boxes)
    rng = np.random.default_rng([seed, *split.encode()])
    sounded: Counter[str] = Counter()
    silenced: Counter[str] = Counter()
    mosaics = []
    for index in range(count):
        sounding = _least_used(sorted(heard), sounded, N_SOUNDING, rng)
        silent = _least_used(sorted(every.keys() - set(sounding)), silenced, N_ITEMS - N_SOUNDING, rng)
        items = [_sounding_item(_draw_segment(heard[name], rng), max_shift, rng) for name in sounding]
        items += [Item(_draw_segment(every[name], rng), sounding=False, gain=0.0, shift=0) for name in silent]
        order = rng.permutation(N_ITEMS)
        mosaics.append(Mosaic(f"{split}-{index:06d}", tuple(items[position] for position in order)))
    return mosaics


def check_pool(
    instruments: Collection[str],
    heard: Collection[str],
    *,
    split: str,
    needs_boxes: bool,
) -> None:
    """Raise ManifestError unless there are four instruments for mosaics, two of which may sound."""
    if len(instruments) < N_ITEMS:
        raise ManifestError(
            f"{split}: a mosaic needs {N_ITEMS} different instruments, each from a video of its own; there are usable "
            f"videos of {len(instruments)} ({', '.join(sorted(instruments)) or 'none'}). Add solo videos, or change "
            "the split by video"
        )
    if len(heard) < N_SOUNDING:
        boxes = " with boxes" if needs_boxes else ""
        raise ManifestError(
            f"{split}: two instruments of a mosaic sound; there are usable videos{boxes} of {len(heard)} "
            f"({', '.join(sorted(heard)) or 'none'}). Annotate more instruments, or add their videos"
        )


def _by_instrument(segments: Sequence[Segment]) -> dict[str, list[list[Segment]]]:
    """Group as instrument → videos → segments, all sorted."""
    grouped: dict[str, dict[str, list[Segment]]] = {}
    for segment in sorted(segments, key=lambda segment: (segment.instrument, segment.video, segment.second)):
        grouped.setdefault(segment.instrument, {}).setdefault(segment.video, []).append(segment)
    return {instrument: list(videos.values()) for instrument, videos in grouped.items()}


def _least_used(names: Sequence[str], used: Counter[str], count: int, rng: np.random.Generator) -> list[str]:
    """Take the `count` least used of `names`, ties broken at random, and count them."""
    order = rng.permutation(len(names))
    chosen = sorted((names[position] for position in order), key=lambda name: used[name])[:count]
    used.update(chosen)
    return chosen


def _draw_segment(videos: Sequence[Sequence[Segment]], rng: np.random.Generator) -> Segment:
    seconds = videos[int(rng.integers(len(videos)))]
    return seconds[int(rng.integers(len(seconds)))]


def _sounding_item(segment: Segment, max_shift: int, rng: np.random.Generator) -> Item:
    gain = round(float(rng.uniform(*GAIN_RANGE)), 6)  # as mosaics.csv shows it
    return Item(segment, sounding=True, gain=gain, shift=int(rng.integers(-max_shift, max_shift + 1)))
