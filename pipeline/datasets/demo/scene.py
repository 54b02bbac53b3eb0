"""What one demo scene is: objects, motion, sound, and where everything is at a given time.

Conventions
-----------
Positions, sizes and displacements are fractions of the image side, origin top left, y down; times in seconds; colors
RGB in 0-255. The plan describes the scene at its central moment, the only one that boxes are exact for; elsewhere
in the shot the camera and the objects have moved on (`displacement`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.demo.polygons import Patch
from pipeline.datasets.demo.shapes import Variation, shape

Color = tuple[int, int, int]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """An object or a piece of clutter at the central moment."""

    kind: str
    x: float  # center of its bounding box
    y: float
    size: float  # longer side of its bounding box
    angle: float  # radians
    mirrored: bool
    variation: Variation
    colors: dict[str, Color]  # tone → color
    light: float  # direction of its shading, radians
    sway: tuple[float, float, float]  # amplitude in x and y, and its rate in Hz


@dataclass(frozen=True)
class Sound:
    """What the sounding object plays. `pitch`, `tempo` and `color` lie in [0, 1] within the kind's own range."""

    kind: str
    pitch: float
    tempo: float
    color: float
    noise: str
    snr_db: float
    peak: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """One clip: what is seen, how it moves, what is heard, and which files hold it."""

    clip_id: str
    objects: tuple[Thing, ...]  # back to front
    sounding: int  # index into `objects`
    clutter: tuple[Thing, ...]
    background: str
    background_hue: float | None  # None: the background's usual colors
    brightness: float
    light: float  # direction of the scene's light, radians
    pan: tuple[float, float]  # of the camera, image sides per second
    fps: int
    n_frames: int
    central_frame: int
    centre_s: float | None  # None: the middle of the shot
    picture: str | None  # ending of the frame file when the clip is a frame file and an audio file
    audio: str | None
    sound: Sound
    texture_seed: int

    @property
    def duration_s(self) -> float:
        """Length of the shot."""
        return self.n_frames / self.fps


def displacement(scene: Scene, thing: Thing | None, frame: int) -> tuple[float, float]:
    """Return how far a thing (None: the background) is, in a frame, from its place at the central moment (x, y)."""
    time_s = (frame - scene.central_frame) / scene.fps
    dx, dy = scene.pan[0] * time_s, scene.pan[1] * time_s
    if thing is None:
        return dx, dy
    swing = math.sin(2 * math.pi * thing.sway[2] * time_s)
    return dx + thing.sway[0] * swing, dy + thing.sway[1] * swing


def bounding_box(thing: Thing) -> Bounds:
    """Return the box (x0, y0, x1, y1) of a thing at the central moment, fractions of the frame."""
    points = np.concatenate([patch.points for patch in placed_patches(thing)])
    x0, y0 = points.min(axis=0).tolist()
    x1, y1 = points.max(axis=0).tolist()
    return x0, y0, x1, y1


def placed_patches(thing: Thing) -> list[Patch]:
    """Return a thing's patches in fractions of the frame, at the central moment."""
    patches = shape(thing.kind, thing.variation)
    c, s = math.cos(thing.angle), math.sin(thing.angle)
    turn = np.array([[c, s], [-s, c]]) * ([[-1], [1]] if thing.mirrored else [[1], [1]])
    turned = [patch.points @ turn for patch in patches]
    low = np.min([points.min(axis=0) for points in turned], axis=0)
    high = np.max([points.max(axis=0) for points in turned], axis=0)
    scale = thing.size / (high - low).max()
    offset = np.array([thing.x, thing.y]) - scale * (low + high) / 2
    return [Patch(scale * t + offset, patch.tone, patch.edge) for t, patch in zip(turned, patches, strict=True)]
