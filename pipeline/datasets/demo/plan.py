"""Plans demo scenes: a scene is a pure function of seed and clip id.

Sounding and silent objects come from the same distributions, and all are placed before one is chosen to sound, so the
image alone does not reveal the source. Background and noise are independent of the object kinds, unless `context` ties
the background to the sounding kind.

Random numbers come from Python's own generator, because its stream for a given seed does not change between Python
versions. The committed manifest therefore stays valid (a test compares them).
"""

from __future__ import annotations

import colorsys
import math
import random
from dataclasses import replace

from pipeline.datasets.demo.scene import Bounds, Color, Scene, Sound, Thing, bounding_box
from pipeline.datasets.demo.shapes import CLUTTER, KINDS

BACKGROUNDS = ("bricks", "checker", "leaves", "wood", "night", "landscape")
NOISES = ("white", "pink", "brown")
# Mean hue of each kind and of its accent color, in turns. Hues vary around it; a share RANDOM_HUE of the objects gets
# any hue, so that color alone does not identify a kind.
PALETTE = {
    "bell": (0.13, 0.10),
    "drum": (0.98, 0.09),
    "guitar": (0.07, 0.10),
    "pipes": (0.45, 0.13),
    "bird": (0.30, 0.60),
    "gong": (0.14, 0.07),
    "gear": (0.55, 0.52),
    "flower": (0.93, 0.14),
    "beanie": (0.99, 0.62),
    "trumpet": (0.08, 0.12),
}
RANDOM_HUE = 0.15
SIZES = (0.36, 0.54)
MARGIN = 0.01  # smallest distance of a box from the frame's border, in the central frame
MAX_OVERLAP = 0.08  # largest intersection of two boxes, as a share of the smaller box
CLUTTER_SIZES = (0.07, 0.22)
FPS = 8


def plan_scene(clip_id: str, *, seed: int, context: float = 0.0) -> Scene:
    """Plan one scene.

    Parameters
    ----------
    clip_id : str
    seed : int
        Seed of the whole dataset.
    context : float in [0, 1]
        Probability that the background is the one tied to the sounding kind. Only the background depends on it.

    Returns
    -------
    Scene
    """
    rng = random.Random(f"soundspot demo {seed} {clip_id}")
    objects = _place_objects(rng)
    sounding = rng.randrange(len(objects))
    kind = objects[sounding].kind
    background, tied = rng.choice(BACKGROUNDS), rng.random() < context
    explicit = rng.random() < 0.2
    # With an odd number of frames, the middle of the shot is in the middle of a frame, not on a frame boundary.
    n_frames = 41 if explicit else rng.choice((31, 33))
    central_frame = rng.randint(11, 29) if explicit else n_frames // 2
    as_files = rng.random() < 0.1
    return Scene(
        clip_id=clip_id,
        objects=objects,
        sounding=sounding,
        clutter=tuple(_clutter(rng) for _ in range(rng.randint(0, 5))),
        background=BACKGROUNDS[KINDS.index(kind) % len(BACKGROUNDS)] if tied else background,
        background_hue=rng.random() if rng.random() < RANDOM_HUE else None,
        brightness=rng.uniform(0.75, 1.0),
        light=rng.uniform(0, 2 * math.pi),
        pan=(rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)),
        fps=FPS,
        n_frames=n_frames,
        central_frame=central_frame,
        centre_s=(central_frame + 0.5) / FPS if explicit else None,
        image=rng.choice(("png", "jpg")) if as_files else None,
        audio=rng.choice(("wav", "flac")) if as_files else None,
        sound=_sound(rng, kind),
        texture_seed=rng.getrandbits(32),
    )


def _place_objects(rng: random.Random) -> tuple[Thing, ...]:
    count = rng.choices((2, 3, 4), weights=(45, 45, 10))[0]
    kinds = rng.sample(KINDS, count)
    largest = SIZES[1]
    while True:
        placed: list[Thing] = []
        boxes: list[Bounds] = []
        for kind in kinds:
            thing = _object(rng, kind, SIZES[0] + (largest - SIZES[0]) * rng.random() ** 1.5)
            x0, y0, x1, y1 = bounding_box(thing)
            box = _free_place(rng, x1 - x0, y1 - y0, boxes)
            if box is None:
                break
            boxes.append(box)
            placed.append(replace(thing, x=(box[0] + box[2]) / 2, y=(box[1] + box[3]) / 2))
        if len(placed) == count:
            return tuple(placed)
        largest = max(largest - 0.01, SIZES[0])  # four objects fit only if they are small


def _free_place(rng: random.Random, width: float, height: float, taken: list[Bounds]) -> Bounds | None:
    """Return a random box of this size with little overlap with those in `taken`, or None after 12 failed tries."""
    for _ in range(12):
        x, y = rng.uniform(MARGIN, 1 - MARGIN - width), rng.uniform(MARGIN, 1 - MARGIN - height)
        box = (x, y, x + width, y + height)
        if all(_overlap(box, other) <= MAX_OVERLAP for other in taken):
            return box
    return None


def _overlap(a: Bounds, b: Bounds) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _object(rng: random.Random, kind: str, size: float) -> Thing:
    shift = rng.random() if rng.random() < RANDOM_HUE else 0.0
    hue, accent = (usual + shift + rng.gauss(0, 0.025) for usual in PALETTE[kind])
    saturation, value = rng.uniform(0.45, 0.85), rng.uniform(0.65, 0.95)
    colors = {
        "main": _rgb(hue, saturation, value),
        "shade": _rgb(hue, saturation, value * 0.6),
        "light": _rgb(hue, saturation * 0.6, min(1.0, value * 1.2)),
        "pale": _rgb(hue, saturation * 0.22, min(1.0, value * 1.25)),
        "accent": _rgb(accent, rng.uniform(0.35, 0.75), rng.uniform(0.55, 0.95)),
        "ink": _rgb(hue, saturation, value * 0.22),
        "white": (245, 245, 240),
    }
    # Rotationally symmetric kinds get any angle; the others stay within 0.6 rad (34°) of upright.
    angle = rng.uniform(0, 2 * math.pi) if kind in ("gear", "flower") else rng.uniform(-0.6, 0.6)
    sway = (rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03), rng.uniform(0.15, 0.45))
    variation = (rng.random(), rng.random(), rng.random(), rng.random())
    light = rng.uniform(0, 2 * math.pi)
    return Thing(kind, 0.5, 0.5, size, angle, rng.random() < 0.5, variation, colors, light, sway)


def _clutter(rng: random.Random) -> Thing:
    colors = {"main": _rgb(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.2, 0.9))}
    variation = (rng.random(), rng.random(), rng.random(), rng.random())
    x, y, size, angle = rng.random(), rng.random(), rng.uniform(*CLUTTER_SIZES), rng.uniform(0, 2 * math.pi)
    return Thing(rng.choice(CLUTTER), x, y, size, angle, False, variation, colors, angle, (0.0, 0.0, 0.0))


def _sound(rng: random.Random, kind: str) -> Sound:
    return Sound(
        kind=kind,
        pitch=rng.random(),
        tempo=rng.random(),
        color=rng.random(),
        noise=rng.choice(NOISES),
        snr_db=rng.uniform(10, 20),
        peak=rng.uniform(0.25, 0.95),
        seed=rng.getrandbits(32),
    )


def _rgb(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
