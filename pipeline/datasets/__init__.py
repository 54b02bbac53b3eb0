"""Datasets: where clip lists, boxes and media come from.

- `demo`: a small synthetic dataset, rendered from a seed.
- `importers`: write clip lists, boxes and a card for public benchmarks, or for a folder of your own videos.
- `mosaics`: mosaics of your own photographs and recordings, or of Tiny-ImageNet and ESC-50.
- `music`: MUSIC-Synthetic, imported as published or rebuilt from solo videos.
- `media_files`: which files of a clip list are there.
- `prepare`: checks a dataset's lists against the media on disk (stage `prepare`).
- `replace`: replaces a dataset's folder of lists atomically.
"""
