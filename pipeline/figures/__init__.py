"""Figures: arrays in, matplotlib figures or blended images out.

- `curves`: success curves. `lines`: line plots over epochs or a setting. `dots`: rows of a comparison, with seeds and intervals.
- `trials`: the trials of a search. `response_curve`: the response of a video over time.
- `overlays`: grids of frames with heat maps, regions and boxes.
- `heatmap`: the colors and the opacity of every heat map, and heat maps blended over images and video frames at full resolution.
- `labels`: the color bar and notices on such images.
- `style`: colors, fonts and the writer of PNG and WebP files.
"""

import os
import sys

if os.environ.get("MPLBACKEND") and "matplotlib" not in sys.modules:
    # matplotlib refuses to be imported if MPLBACKEND names a backend that is not installed here, such as that of the notebook
    # which started a command. Figures are drawn without one; a backend that is installed is left to the user.
    _backend = os.environ.pop("MPLBACKEND")
    import matplotlib

    try:
        matplotlib.rcParams["backend"] = _backend
        os.environ["MPLBACKEND"] = _backend
    except ValueError:
        pass
