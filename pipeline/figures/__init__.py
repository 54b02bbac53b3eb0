"""Figures: arrays in, matplotlib figures or blended images out.

- `curves`: success curves. `lines`: line plots over epochs or a setting.
- `overlays`: grids of frames with heat maps, regions and boxes.
- `heatmap`: heat maps blended over images and video frames at full resolution.
- `style`: colors, fonts and the PNG writer.
"""
