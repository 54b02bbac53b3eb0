"""Data model of a demo scene: objects, motion and sound, and the geometry of each frame.

Conventions
-----------
Positions, sizes and displacements are fractions of the image side, origin top left, y down; times are in seconds;
colors are RGB, 0-255. A scene describes its central frame, and boxes are exact for that frame only. In other frames,
camera and objects are displaced (`displacement`).
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
    """An object or a piece of clutter, as it is in the central frame."""

    kind: str
    x: float  # center of its bounding box
    y: float
    size: float  # longer side of its bounding box
    angle: float  # radians
    mirrored: bool
    variation: Variation
    colors: dict[str, Color]  # tone → color
    light: float  # direction of its shading, radians
    sway: tuple[float, float, float]  # amplitude in x and y, and frequency in Hz


@dataclass(frozen=True)
class Sound:
    """The sound of the sounding object. `pitch`, `tempo` and `color` are in [0, 1], relative to the kind's range."""

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
    """One clip: its objects, their motion, its sound, and its file types."""

    clip_id: str
    objects: tuple[Thing, ...]  # back to front
    sounding: int  # index into `objects`
    clutter: tuple[Thing, ...]
    background: str
    background_hue: float | None  # shift in turns; None keeps the background's usual colors
    brightness: float
    light: float  # direction of the scene's light, radians
    pan: tuple[float, float]  # camera motion, image sides per second
    fps: int
    n_frames: int
    central_frame: int
    centre_s: float | None  # None: the middle of the shot
    image: str | None  # suffix of the frame file, if the clip is a frame file plus an audio file
    audio: str | None  # suffix of the audio file
    sound: Sound
    texture_seed: int

    @property
    def duration_s(self) -> float:
        """Length of the shot in seconds."""
        return self.n_frames / self.fps


def displacement(scene: Scene, thing: Thing | None, frame: int) -> tuple[float, float]:
    """Return the displacement (x, y) of a thing (None: the background) relative to the central frame."""
    time_s = (frame - scene.central_frame) / scene.fps
    dx, dy = scene.pan[0] * time_s, scene.pan[1] * time_s
    if thing is None:
        return dx, dy
    swing = math.sin(2 * math.pi * thing.sway[2] * time_s)
    return dx + thing.sway[0] * swing, dy + thing.sway[1] * swing


def bounding_box(thing: Thing) -> Bounds:
    """Return the box (x0, y0, x1, y1) of a thing in the central frame, in fractions of the frame."""
    points = np.concatenate([patch.points for patch in placed_patches(thing)])
    x0, y0 = points.min(axis=0).tolist()
    x1, y1 = points.max(axis=0).tolist()
    return x0, y0, x1, y1


def placed_patches(thing: Thing) -> list[Patch]:
    """Return a thing's patches in the central frame, in fractions of the frame."""
    patches = shape(thing.kind, thing.variation)
    c, s = math.cos(thing.angle), math.sin(thing.angle)
    turn = np.array([[c, s], [-s, c]]) * ([[-1], [1]] if thing.mirrored else [[1], [1]])
    turned = [patch.points @ turn for patch in patches]
    # Scale after the rotation, so that the bounding box in the frame has the planned size at any angle.
    low = np.min([points.min(axis=0) for points in turned], axis=0)
    high = np.max([points.max(axis=0) for points in turned], axis=0)
    scale = thing.size / (high - low).max()
    offset = np.array([thing.x, thing.y]) - scale * (low + high) / 2
    return [Patch(scale * t + offset, patch.tone, patch.edge) for t, patch in zip(turned, patches, strict=True)]
