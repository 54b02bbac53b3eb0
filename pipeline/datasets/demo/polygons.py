"""Polygon primitives for drawing the demo's objects.

Conventions
-----------
Points are float64 (point, 2), x to the right and y down, in the object's own units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Patch:
    """One filled polygon.

    Attributes
    ----------
    points : np.ndarray [shape=(point, 2), dtype=float64]
    tone : str
        Key into the object's colors.
    edge : bool
        Whether the outline is drawn, too.
    """

    points: np.ndarray
    tone: str
    edge: bool = False


def polygon(points: list[tuple[float, float]], tone: str, edge: bool = False) -> Patch:
    """Return the polygon with the given corners."""
    return Patch(np.array(points, dtype=np.float64), tone, edge)


def ellipse(
    x: float, y: float, rx: float, ry: float, tone: str, edge: bool = False, turn: float = 0.0, n: int = 28
) -> Patch:
    """Return an ellipse around (x, y) with radii rx and ry, turned by `turn` radians, as an n-gon."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    u, v = rx * np.cos(angle), ry * np.sin(angle)
    c, s = np.cos(turn), np.sin(turn)
    return Patch(np.stack([x + c * u - s * v, y + s * u + c * v], axis=1), tone, edge)


def bar(x0: float, y0: float, x1: float, y1: float, tone: str, edge: bool = False) -> Patch:
    """Return an axis-aligned rectangle."""
    return polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], tone, edge)


def profile(y: np.ndarray, half_width: np.ndarray, tone: str, edge: bool = False) -> Patch:
    """Return a shape that is symmetric about x = 0, from its half widths at the heights `y`."""
    right = np.stack([half_width, y], axis=1)
    return Patch(np.concatenate([right, (right * (-1, 1))[::-1]]), tone, edge)


def line(points: list[tuple[float, float]], thickness: float, tone: str) -> Patch:
    """Return a stroke with vertical thickness `thickness` along points with increasing x."""
    middle = np.array(points, dtype=np.float64)
    # Offset vertically, not along the normal: simpler, and good enough for short strokes.
    half = np.array([0.0, thickness / 2])
    return Patch(np.concatenate([middle + half, (middle - half)[::-1]]), tone)
