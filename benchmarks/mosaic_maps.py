"""Draw response maps of mosaics without their photographs: boxes have the names of their classes; that of the sounding one is solid.

So a figure of a dataset whose photographs may not be published can be. The clips are drawn at random, not chosen.

    python benchmarks/mosaic_maps.py --dataset real --variants initial itr_inter [--clips 6] [--seed 0] [--output docs/images/real-maps.webp]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke

from pipeline.common.project import manifest_folder
from pipeline.evaluation.labels import label_of
from pipeline.figures.overlays import Panel, draw_panel
from pipeline.figures.style import FONT_SIZE, new_figure, save
from pipeline.manifests.boxes import Box, boxes_path, read_boxes
from pipeline.scoring.map_file import read_maps

SIDE = 1.25  # inches
GRAY = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="real")
    parser.add_argument("--variants", nargs="+", default=["initial", "itr_inter"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--output", type=Path, default=Path("docs/images/real-maps.webp"))
    options = parser.parse_args()
    boxes = defaultdict(list)
    for box in read_boxes(boxes_path(manifest_folder(options.project, options.dataset), options.split)):
        boxes[box.clip_id].append(box)
    folder = options.project / "results" / options.dataset / "maps"
    maps = {name: read_maps(folder / name / "maps.h5") for name in options.variants}
    first = maps[options.variants[0]]
    rows = np.sort(np.random.default_rng(options.seed).choice(len(first.clip_ids), options.clips, replace=False))
    ids = [first.clip_ids[row] for row in rows]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save(draw({name: each.response[rows] for name, each in maps.items()}, ids, boxes), options.output, lossless=False)


def draw(responses: Mapping[str, np.ndarray], ids: Sequence[str], boxes: Mapping[str, Sequence[Box]]) -> Figure:
    """Return one row of panels for each variant, and one column for each clip."""
    left, top = 0.2, 0.25
    width, height = left + SIDE * len(ids), top + SIDE * len(responses)
    figure = new_figure(width=width, height=height)
    for i, (name, maps) in enumerate(responses.items()):
        for j, (clip, response) in enumerate(zip(ids, maps, strict=True)):
            place = (left + j * SIDE, height - top - (i + 1) * SIDE + 0.05, SIDE - 0.05, SIDE - 0.05)
            axes = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
            _draw_clip(axes, response, boxes[clip])
            if i == 0:
                axes.set_title(clip, fontsize=FONT_SIZE - 1, pad=3)
            if j == 0:
                axes.set_ylabel(label_of(name), fontsize=FONT_SIZE)
    return figure


def _draw_clip(axes: Axes, response: np.ndarray, boxes: Sequence[Box]) -> None:
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], autoscale_on=False)
    axes.spines[:].set_visible(False)
    low, high = response.min(), response.max()
    heatmap = (response - low) / max(high - low, np.finfo(np.float32).tiny)
    draw_panel(axes, Panel(np.full((8, 8, 3), GRAY, np.uint8), boxes=boxes, heatmap=heatmap))
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2, foreground="black")]
    for box in boxes:
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        text = axes.text(x, y, box.source, color="white", ha="center", va="center", fontsize=FONT_SIZE - 1)
        text.set_path_effects(outline)


if __name__ == "__main__":
    main()
