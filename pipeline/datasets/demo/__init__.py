"""The demo dataset: rendered videos of sounding and silent objects, reproducible from a seed.

`plan` draws a `scene` (objects from `shapes`, made of `polygons`), `drawing` and `backgrounds` render its frames,
`sounds` synthesizes its audio, `media` encodes both, and `dataset` writes the lists and renders all clips.
"""
