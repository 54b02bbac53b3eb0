"""What all figures share: colors, font size, resolution, and the PNG writer.

Conventions
-----------
Figures are built without pyplot: there is no global state, and no display is needed. Colors are those of Okabe and Ito,
which remain distinct under common color blindness; color is never the only cue. Equal input gives equal PNG bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.common.files import replacing

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GRAY = "#6e6e6e"
LIGHT_GRAY = "#a3a3a3"
GRID_GRAY = "#e4e4e4"
# One more marker than colors, so that the pairs repeat only after 56 curves.
MARKERS = "osD^vPX*"
FONT_SIZE = 9
DPI = 150


def new_figure(*, width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """Return an empty white figure; `width` and `height` in inches, `layout` as in matplotlib."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, *, lossless: bool = True) -> None:
    """Write a figure atomically: as WebP, which is smaller, if the suffix is .webp, otherwise as PNG, which is always lossless."""
    with replacing(path) as temporary:
        if path.suffix == ".webp":
            figure.savefig(temporary, format="webp", pil_kwargs={"lossless": lossless, "quality": 85})
        else:
            # matplotlib would write its version, which would change the bytes.
            # Level 4 takes less than half the time of the default, 6, for 3% more space.
            figure.savefig(temporary, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4})
