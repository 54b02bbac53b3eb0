"""Draws demo scenes: antialiased, textured sprites that move in front of a background.

Conventions
-----------
Images are Pillow RGB, colors 0-255. The static background is drawn once, on a canvas that extends `BORDER` pixels
beyond the frame on each side. A frame is a crop of that canvas, plus the sprites at their current positions, the
scene's lighting, and per-frame grain.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pipeline.datasets.demo.backgrounds import BORDER, SIDE, draw_background
from pipeline.datasets.demo.scene import Scene, Thing, displacement, placed_patches

SUPERSAMPLING = 3
_GRAIN = 5.0  # standard deviation of the grain, on the 0-255 scale


def draw_frames(scene: Scene, frames: range) -> Iterator[Image.Image]:
    """Draw the requested frames of a scene.

    Parameters
    ----------
    scene : Scene
    frames : range
        Frame indices, within ``range(scene.n_frames)``.

    Yields
    ------
    Image.Image
        RGB, `SIDE` x `SIDE` pixels.
    """
    rng = np.random.default_rng(scene.texture_seed)
    canvas = draw_background(scene.background, hue=scene.background_hue, rng=rng)
    for thing in scene.clutter:
        sprite, x, y = draw_sprite(thing, rng=rng)
        canvas.paste(sprite, (x + BORDER, y + BORDER), sprite)
    sprites = [(thing, *draw_sprite(thing, rng=rng)) for thing in scene.objects]
    light, grain = _light(scene), _grain(rng)
    # Each frame uses another crop of one noise image: much cheaper than new noise, and it looks just as random.
    shifts = rng.integers(0, grain.width - SIDE + 1, size=(scene.n_frames, 2))
    for index in frames:
        dx, dy = _pixels(displacement(scene, None, index))
        left, top = BORDER - dx, BORDER - dy
        frame = canvas.crop((left, top, left + SIDE, top + SIDE))
        for thing, sprite, x, y in sprites:
            dx, dy = _pixels(displacement(scene, thing, index))
            frame.paste(sprite, (x + dx, y + dy), sprite)
        u, v = map(int, shifts[index])
        frame = ImageChops.multiply(frame, light)
        yield ImageChops.add(frame, grain.crop((u, v, u + SIDE, v + SIDE)), 1, -128)


def draw_sprite(thing: Thing, *, rng: np.random.Generator) -> tuple[Image.Image, int, int]:
    """Draw one object or piece of clutter.

    Returns
    -------
    sprite : Image.Image
        RGBA.
    x, y : int
        Position of its top left corner in the central frame, pixels.
    """
    patches = placed_patches(thing)
    points = np.concatenate([patch.points for patch in patches]) * SIDE
    left, top = (int(v) for v in np.floor(points.min(axis=0)))
    width, height = (int(v) for v in np.ceil(points.max(axis=0)) - (left, top))
    # The transparent background has the object's own color, so that downsampling leaves no dark fringe.
    size = (max(1, width) * SUPERSAMPLING, max(1, height) * SUPERSAMPLING)
    image = Image.new("RGBA", size, (*thing.colors["main"], 0))
    draw = ImageDraw.Draw(image)
    for patch in patches:
        # Pillow puts integer coordinates at pixel centers, ours are pixel edges: hence half a pixel less.
        outline = ((patch.points * SIDE - (left, top)) * SUPERSAMPLING - 0.5).ravel().tolist()
        edge = thing.colors["ink"] if patch.edge else None
        draw.polygon(outline, fill=thing.colors[patch.tone], outline=edge, width=SUPERSAMPLING)
    return _shaded(image.reduce(SUPERSAMPLING), thing.light, rng), left, top


def _pixels(shift: tuple[float, float]) -> tuple[int, int]:
    return round(shift[0] * SIDE), round(shift[1] * SIDE)


def _shaded(sprite: Image.Image, light: float, rng: np.random.Generator) -> Image.Image:
    """Shade a sprite along the direction of its light, and roughen its surface with noise."""
    pixels = np.asarray(sprite, dtype=np.float32).copy()
    rows, columns = pixels.shape[:2]
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    gain = 1 + np.float32(0.22) * (np.cos(light, dtype=np.float32) * x + np.sin(light, dtype=np.float32) * y)
    gain += np.float32(0.07) * rng.standard_normal((rows, columns), dtype=np.float32)
    pixels[..., :3] *= gain[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGBA")


def _light(scene: Scene) -> Image.Image:
    """Return the scene's lighting as an image to multiply by: brightest on one side, at most `brightness`."""
    y, x = np.mgrid[-1:1:8j, -1:1:8j]
    field = scene.brightness * (0.86 + 0.14 * (np.cos(scene.light) * x + np.sin(scene.light) * y) / np.sqrt(2))
    small = Image.fromarray((255 * field).astype(np.uint8))
    return Image.merge("RGB", [small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)] * 3)


def _grain(rng: np.random.Generator) -> Image.Image:
    noise = 128 + _GRAIN * rng.standard_normal((SIDE + 32, SIDE + 32, 3), dtype=np.float32)
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
