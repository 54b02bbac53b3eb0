"""Scoring: response maps and boxes → metrics. Nothing here depends on a model.

- `protocols` → `ground_truth`, `upsampling` → `metrics` → `score`, `class_maps`: from one map to per-clip scores.
- `quadrants`: from the map of a mosaic to the accuracy of its strongest cell.
- `results`, `summary`, `tables`: per-clip scores → flat metrics → tables.
- `scorable`: what a split needs to be scored, checked before anything is computed.
- `baselines`: content-free maps and their scores. `map_file`: response maps on disk.
"""
