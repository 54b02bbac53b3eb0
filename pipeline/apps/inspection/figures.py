"""Figures of pseudo-labels: maps over frames, two epochs side by side, histograms.

Conventions
-----------
Frames are uint8 (row, column, channel); a clip without a frame is drawn on gray. Maps are R̃ (h, w) in [0, 1]. The outline of
a sounding region follows its cells.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from pipeline.apps.inspection.measures import Comparison, Histogram
from pipeline.apps.inspection.text import NAMES, PASSES
from pipeline.apps.inspection.views import ClipView
from pipeline.figures.heatmap import overlay as heat_over
from pipeline.figures.labels import color_bar
from pipeline.figures.overlays import REGION_COLOR, Panel, overlay_grid
from pipeline.figures.style import COLORS, new_figure
from pipeline.pseudo_labels.artifact import ClipLabels, PseudoLabels
from pipeline.shards.reader import ShardSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRAY_FRAME = 96
_SIDE = 128  # pixels of a missing frame
_CELL = 16  # pixels per cell when its region is outlined


@dataclass(frozen=True)
class Frames:
    """Frames by clip id; without shards every frame is gray."""

    shards: ShardSet | None

    @property
    def side(self) -> int:
        """Rows and columns of a frame, pixels."""
        return self.shards.image_size if self.shards else _SIDE

    def of(self, clip_id: str) -> np.ndarray:
        """Return a clip's frame, or a gray one if there is none. Raises ShardError if the shard is damaged."""
        if self.shards is None or clip_id not in self._position:
            return np.full((self.side, self.side, 3), GRAY_FRAME, dtype=np.uint8)
        return self.shards.read([self._position[clip_id]])[0][0]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {clip_id: i for i, clip_id in enumerate(self.shards.clip_ids)} if self.shards else {}


def clip_figure(view: ClipView, labels: PseudoLabels, frames: Frames, *, most: int = 8) -> Figure:
    """Return a clip's frame and map, followed by up to `most` of its nearest neighbors by audio with theirs."""
    panels, columns = [Panel(frames.of(view.clip_id), caption=view.clip_id)], ["frame"]
    panels.append(_panel(labels[view.clip_id], frames, caption=f"sounding {100 * view.sounding_fraction:.1f}%"))
    columns.append(f"epoch {view.epoch}")
    for place, each in enumerate(view.neighborhood.neighbors[:most], start=1):
        caption = f"{each.clip_id}\n{each.similarity:.3f}, y = {int(each.related)}"
        panels.append(_panel(labels[each.clip_id], frames, caption=caption))
        columns.append(f"neighbor {place}")
    return overlay_grid([panels], columns=columns, side=1.7)


def comparison_figure(comparison: Comparison, before: PseudoLabels, after: PseudoLabels, frames: Frames) -> Figure:
    """Return the most changed clips, one per row: the frame, and the maps of both epochs over it."""
    rows, names = [], []
    for each in comparison.most_changed:
        panels = [_panel(labels[each.clip_id], frames) for labels in (before, after)]
        rows.append([Panel(frames.of(each.clip_id)), *panels])
        names.append(f"{each.clip_id}\nmask IoU {each.mask_iou:.2f}")
    return overlay_grid(rows, columns=["frame", *_epochs_of(before, after)], names=names)


def _epochs_of(*compared: PseudoLabels) -> list[str]:
    """Return a name for each artifact: method and epoch, or the file if these are equal."""
    names = [f"{each.attrs['objective']}, epoch {each.attrs['epoch']}" for each in compared]
    if len(set(names)) == len(names):
        return names
    return [f"{each.path}" for each in compared]


def histogram_figure(histograms: Sequence[Histogram]) -> Figure:
    """Return histograms side by side, with the threshold of each as a line."""
    figure = new_figure(width=4.2 * len(histograms), height=3.2, layout="constrained")
    for place, each in enumerate(histograms, start=1):
        axes = figure.add_subplot(1, len(histograms), place)
        edges = np.linspace(each.low, each.high, len(each.counts) + 1)
        share = 100 * np.array(each.counts) / max(sum(each.counts), 1)
        axes.bar(
            edges[:-1], share, width=np.diff(edges), align="edge", color=COLORS[0], edgecolor="white", linewidth=0.4
        )
        axes.axvline(each.mark, color=COLORS[1], linewidth=1.4, linestyle="--")
        axes.set_title(
            f"{100 * each.above:.1f}% {PASSES[each.mark_name]} {NAMES[each.mark_name]} = {each.mark:g}", fontsize=9
        )
        axes.set(xlabel=each.name, ylabel="percent", xlim=(each.low, each.high))
        axes.locator_params(axis="x", nbins=5)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def overlay_labels(frame: np.ndarray, clip: ClipLabels) -> Image.Image:
    """Draw a clip's map and the outline of its sounding region over the frame; many times faster than a matplotlib figure.

    Parameters
    ----------
    frame : np.ndarray (row, col, 3) uint8
    clip : ClipLabels
    """
    blended = heat_over(frame, clip.response)
    mask = pixels_of(clip.mask, *frame.shape[:2])
    # The outline is every mask pixel with a neighbor outside the mask; the image border counts as outside.
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    blended[mask & ~inner] = [int(REGION_COLOR[i : i + 2], 16) for i in (1, 3, 5)]
    return Image.fromarray(blended)


def pixels_of(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask of cells as a mask of pixels: a pixel belongs to the cell that holds it."""
    rows, cols = (np.arange(n) * cells // n for n, cells in zip((height, width), mask.shape, strict=True))
    return mask[rows[:, None], cols]


def comparison_page(comparison: Comparison, before: PseudoLabels, after: PseudoLabels, frames: Frames) -> str:
    """Return a gallery of the most changed clips as one self-contained HTML page."""
    names = ["frame", *_epochs_of(before, after)]
    cards = []
    for each in comparison.most_changed:
        frame = frames.of(each.clip_id)
        images = [
            Image.fromarray(frame),
            *(overlay_labels(frame, labels[each.clip_id]) for labels in (before, after)),
        ]
        cards.append({"clip": each, "images": list(zip(names, map(_data_uri, images), strict=True))})
    environment = Environment(
        loader=PackageLoader("pipeline.apps.inspection"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    title = f"{names[1]} and {names[2]}"
    return environment.get_template("comparison.html").render(
        title=title, comparison=comparison, cards=cards, color_bar=_data_uri(Image.fromarray(color_bar(256)[None]))
    )


def _panel(clip: ClipLabels, frames: Frames, *, caption: str = "") -> Panel:
    # Magnified, so that the outline follows the borders of the cells.
    region = np.kron(clip.mask, np.ones((_CELL, _CELL), dtype=bool))
    return Panel(frames.of(clip.clip_id), heatmap=clip.response, region=region, caption=caption)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
