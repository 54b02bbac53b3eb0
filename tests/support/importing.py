"""Small files of the public formats, and a project to import them into."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.datasets.importers.write import ImportOptions

PARAMS = """\
# Settings.
dataset: demo
training:
  demo:   # small
    batch_size: 64

  # The paper's.
  soundnet_flickr:
    batch_size: 96   # paper
    iterate: {epochs: 20}

  other: {batch_size: 2}

# After.
extract: {clips_per_shard: 512}
"""


def make_project(folder: Path) -> Path:
    """Create a project that contains only settings."""
    folder.mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    return folder


def options(project: Path, name: str, media: Path, **changes: Any) -> ImportOptions:
    return ImportOptions(name=name, media=media, project=project, **changes)


def write_files(folder: Path, names: Iterable[str], content: bytes = b"x") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def flickr_xml(boxes: Sequence[Sequence[object]], *, one_each: bool) -> str:
    """Return an annotation file of SoundNet-Flickr: one element per annotator, or all boxes in one element."""
    parts = ("xmin", "ymin", "xmax", "ymax")
    texts = [
        "<bbox><name>sound</name>" + "".join(f"<{p}> {v} </{p}>" for p, v in zip(parts, box, strict=True)) + "</bbox>"
        for box in boxes
    ]
    body = "".join(f"<object><tag>x</tag>{text}</object>" for text in texts)
    if not one_each:
        body = f"<object>{''.join(texts)}</object>"
    return f"<annotation><filename>a.jpg</filename>{body}</annotation>"


def write_video(path: Path, *, frames: bool = True, sound: bool = True) -> None:
    """Write a tenth of a second of gray and of a quiet tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="matroska") as container:
        if frames:
            video = container.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
        if sound:
            audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        if frames:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 128, dtype=np.uint8), format="rgb24")
            container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if sound:
            tone = (1000 * np.sin(np.arange(800) / 4)).astype(np.int16)[None]
            samples = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            samples.sample_rate, samples.time_base = 8000, Fraction(1, 8000)
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))


def tree(folder: Path) -> Mapping[str, bytes]:
    """Return all files in a folder with their content."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
