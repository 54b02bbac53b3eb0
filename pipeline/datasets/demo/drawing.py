"""Drawing of demo scenes: objects as antialiased, textured sprites that move over a background.

Conventions
-----------
Pictures are Pillow RGB images, colors 0-255. The static scene is drawn once on a canvas that is `BORDER` pixels larger
than the frame on every side; a frame is a crop of the canvas with the sprites pasted where they are at that time, under
the scene's light, with fresh grain.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pipeline.datasets.demo.backgrounds import BORDER, SIDE, draw_background
from pipeline.datasets.demo.scene import Scene, Thing, displacement, placed_patches

SUPERSAMPLING = 3
_GRAIN = 5.0  # standard deviation of a frame's grain, of 255


def draw_frames(scene: Scene, frames: range) -> Iterator[Image.Image]:
    """Draw some frames of a scene.

    Parameters
    ----------
    scene : Scene
    frames : range
        Indices of the wanted frames, within ``range(scene.n_frames)``.

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
        Where its top left corner belongs in the frame at the central moment, pixels.
    """
    patches = placed_patches(thing)
    points = np.concatenate([patch.points for patch in patches]) * SIDE
    left, top = (int(v) for v in np.floor(points.min(axis=0)))
    width, height = (int(v) for v in np.ceil(points.max(axis=0)) - (left, top))
    # A transparent ground of the object's own color: downsampling then leaves no dark fringe.
    size = (max(1, width) * SUPERSAMPLING, max(1, height) * SUPERSAMPLING)
    image = Image.new("RGBA", size, (*thing.colors["main"], 0))
    draw = ImageDraw.Draw(image)
    for patch in patches:
        # Pillow's pixel (i, j) covers [i, i+1): half a pixel less centers the polygon's edge.
        outline = ((patch.points * SIDE - (left, top)) * SUPERSAMPLING - 0.5).ravel().tolist()
        edge = thing.colors["ink"] if patch.edge else None
        draw.polygon(outline, fill=thing.colors[patch.tone], outline=edge, width=SUPERSAMPLING)
    return _shaded(image.reduce(SUPERSAMPLING), thing.light, rng), left, top


def _pixels(shift: tuple[float, float]) -> tuple[int, int]:
    return round(shift[0] * SIDE), round(shift[1] * SIDE)


def _shaded(sprite: Image.Image, light: float, rng: np.random.Generator) -> Image.Image:
    """Shade a sprite across the direction of its light, and roughen its surface."""
    pixels = np.asarray(sprite, dtype=np.float32).copy()
    rows, columns = pixels.shape[:2]
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    gain = 1 + np.float32(0.22) * (np.cos(light, dtype=np.float32) * x + np.sin(light, dtype=np.float32) * y)
    gain += np.float32(0.07) * rng.standard_normal((rows, columns), dtype=np.float32)
    pixels[..., :3] *= gain[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGBA")


def _light(scene: Scene) -> Image.Image:
    """Return the scene's light as a picture to multiply with: brightest on one side, `brightness` at most."""
    y, x = np.mgrid[-1:1:8j, -1:1:8j]
    field = scene.brightness * (0.86 + 0.14 * (np.cos(scene.light) * x + np.sin(scene.light) * y) / np.sqrt(2))
    small = Image.fromarray((255 * field).astype(np.uint8))
    return Image.merge("RGB", [small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)] * 3)


def _grain(rng: np.random.Generator) -> Image.Image:
    noise = 128 + _GRAIN * rng.standard_normal((SIDE + 32, SIDE + 32, 3), dtype=np.float32)
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
