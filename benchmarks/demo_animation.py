"""Draw the animation of the README: response maps of test clips after each epoch, next to their frames.

The clips are drawn at random, one for each label, not chosen by their scores. The run must keep its checkpoints (`keep_epochs`).

    python benchmarks/demo_animation.py [--variant iterative] [--clips 6] [--seed 0] [--output docs/images/demo.gif]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pipeline.common.files import replacing
from pipeline.common.project import manifest_folder, results_folder, runs_folder, shards_folder
from pipeline.evaluation.epoch_maps import checkpoint_maps
from pipeline.figures.heatmap import overlay
from pipeline.manifests.clips import read_clips
from pipeline.model.equations import min_max
from pipeline.scoring.map_file import read_maps
from pipeline.shards.reader import ShardSet

SIDE, GAP, LINE = 150, 6, 24  # pixels
PAPER, INK = (255, 255, 255), (40, 40, 40)
STEPS, STEP_MS, HOLD_MS = 6, 60, 900  # between two epochs
COLORS = 96  # keeps the file below a megabyte


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--variant", default="iterative")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the draw of the clips")
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--output", type=Path, default=Path("docs/images/demo.gif"))
    options = parser.parse_args()
    project, dataset = options.project, options.dataset
    shards = ShardSet.open(shards_folder(project, dataset, options.split))
    label_of = {
        clip.clip_id: clip.label or ""
        for clip in read_clips(manifest_folder(project, dataset) / f"{options.split}.csv")
    }
    ids = one_per_label(shards.clip_ids, label_of, n=options.clips, seed=options.seed)
    kept = checkpoint_maps(runs_folder(project, dataset) / options.variant, shards, ids)
    last = read_maps(results_folder(project, dataset) / "maps" / options.variant / "maps.h5")
    final = last.response[[last.clip_ids.index(clip) for clip in ids]]
    maps = min_max(torch.from_numpy(np.stack([*kept.response, final]))).numpy()  # R̃, Eq. 1
    frames, _ = shards.read([shards.clip_ids.index(clip) for clip in ids])
    pictures, milliseconds = animate(frames, [label_of[clip] for clip in ids], maps, kept.epochs)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(options.output) as path:
        pictures[0].save(
            path, format="GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, optimize=True
        )
    print(f"wrote {options.output} ({options.output.stat().st_size / 1e3:.0f} kB): {', '.join(ids)}")


def one_per_label(clip_ids: Sequence[str], label_of: dict[str, str], *, n: int, seed: int) -> list[str]:
    """Draw up to `n` clips at random, no two with the same label."""
    drawn: dict[str, str] = {}
    for row in np.random.default_rng(seed).permutation(len(clip_ids)):
        drawn.setdefault(label_of[clip_ids[row]], clip_ids[row])
    return list(drawn.values())[:n]


def animate(
    frames: np.ndarray, labels: Sequence[str], maps: np.ndarray, epochs: Sequence[int]
) -> tuple[list[Image.Image], list[int]]:
    """Return the pictures of the animation and how long each is shown.

    Parameters
    ----------
    frames : np.ndarray (clip, row, col, 3) uint8
    labels : sequence of str
    maps : np.ndarray (epoch, clip, row, col)
        In [0, 1].
    epochs : sequence of int
        Their numbers.
    """
    large = [np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for frame in frames]
    pictures, milliseconds = [], []
    for i, epoch in enumerate(epochs):
        for step in range(STEPS if i + 1 < len(epochs) else 1):
            share = step / STEPS
            between = maps[i] if share == 0 else (1 - share) * maps[i] + share * maps[i + 1]
            pictures.append(_picture(large, labels, between, f"epoch {epoch}"))
            milliseconds.append(STEP_MS if share else HOLD_MS)
    milliseconds[-1] = 3 * HOLD_MS
    # One palette for all, so that colors do not flicker.
    palette = pictures[-1].quantize(COLORS, dither=Image.Dither.NONE)
    return [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures], milliseconds


def _picture(frames: Sequence[np.ndarray], labels: Sequence[str], maps: np.ndarray, title: str) -> Image.Image:
    width = len(frames) * (SIDE + GAP) - GAP
    picture = Image.new("RGB", (width, 2 * LINE + 2 * SIDE + GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=15)
    for i, (frame, label, heatmap) in enumerate(zip(frames, labels, maps, strict=True)):
        left = i * (SIDE + GAP)
        draw.text((left + SIDE / 2, LINE / 2), label, fill=INK, font=font, anchor="mm")
        picture.paste(Image.fromarray(frame), (left, LINE))
        picture.paste(Image.fromarray(overlay(frame, heatmap)), (left, LINE + SIDE + GAP))
    draw.text((width / 2, 1.5 * LINE + 2 * SIDE + GAP), title, fill=INK, font=font, anchor="mm")
    return picture


if __name__ == "__main__":
    main()
