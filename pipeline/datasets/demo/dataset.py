"""The demo dataset: real video files of a small invented world, rendered from a seed.

Each clip is a short shot of two to four objects before a cluttered background. One of them sounds, with the timbre of
its kind; the silent ones are of other kinds, which sound in other clips, so that only what is seen and heard together
over many clips tells which it is. A tenth of the clips is a frame file and an audio file instead of a video.

The committed lists in ``data_manifests/demo`` are what ``write_manifest(Path("data_manifests/demo"), seed=0)`` writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.common.cluster import run_tasks
from pipeline.common.errors import RenderError
from pipeline.common.files import fingerprint, locked, write_bytes, write_json, write_text
from pipeline.datasets.demo.media import encode_audio, encode_picture, encode_video
from pipeline.datasets.demo.plan import plan_scene
from pipeline.datasets.demo.scene import Scene, bounding_box
from pipeline.manifests.clips import Box, Clip, write_boxes, write_clips

VERSION = 1  # of the generator; another number renders everything again
STAMP = ".generated.json"
ANNOTATOR = "renderer"
_CLIPS_PER_TASK = 16
_CARD = """\
# A small invented world, rendered from a seed: it shows that everything works, on any computer, within minutes.
# The values here are ours, not the paper's, chosen so that two CPU cores suffice and the method can be seen to learn.
title: {title}
source: rendered by pipeline/datasets/demo/dataset.py
license: Apache-2.0, like the program that renders it
media_root: {media_root}
image_size: 128  # objects are about 50 pixels wide: large enough for their textures, and a quarter of 256²'s work
audio:
  sample_rate: 16000  # the paper's second setting; every timbre lies below 8 kHz
  clip_seconds: 2.0  # holds a few strokes of the slowest instrument, and keeps the spectrogram small
  n_fft: 640  # 40 ms
  hop_length: 320  # 20 ms: 101 frames
  n_mels: 64
  power: 2.0
  log_floor: 1.0e-10
evaluation:
  protocol: paper256
  threshold: 0.5
render:
  seed: {seed}
  # Probability that the background is the one tied to the sounding kind. Above 0 the background predicts the sound, as
  # a stage does a guitar: this is what the intra-frame term (Eq. 5) is for.
  context: {context}
"""


def write_manifest(
    folder: Path,
    *,
    seed: int,
    train: int = 3000,
    validation: int = 500,
    test: int = 1000,
    context: float = 0.0,
    title: str = "Demo: ten kinds of sounding objects",
    media_root: str = "data/demo/media",
) -> None:
    """Write the card, the clip lists, and the boxes of the splits that are scored.

    Parameters
    ----------
    folder : Path
        Such as ``data_manifests/demo``.
    seed : int
        Of everything random; the same seed gives the same files.
    train, validation, test : int
        Clips of each split, at least 1; `validation` 0 leaves that split out.
    context : float in [0, 1]
        Goes into the card; the lists do not depend on it.
    title, media_root : str
        Go into the card.
    """
    values = {"seed": seed, "context": float(context), "title": json.dumps(title), "media_root": json.dumps(media_root)}
    write_text(folder / "dataset.yaml", _CARD.format(**values))
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        if count == 0:
            continue
        scenes = [plan_scene(f"{split}-{index:05d}", seed=seed) for index in range(count)]
        write_clips(folder / f"{split}.csv", [_clip(scene, split) for scene in scenes])
        if split != "train":
            write_boxes(folder / f"{split}_boxes.csv", [box for scene in scenes for box in _boxes(scene)])


def render_media(
    clips: Sequence[Clip],
    *,
    media_root: Path,
    seed: int,
    context: float,
    scheduler: str | None = None,
    workers: int | None = None,
) -> str:
    """Render the media of the listed clips that are not there yet.

    What lies in `media_root` is kept if its stamp says that it was made by this version of the generator with the same
    `seed` and `context`; otherwise it is removed and rendered again. The files do not depend on `workers`.

    Parameters
    ----------
    clips : sequence of Clip
        Their ids and paths; `centre_s` and `label` are not read.
    media_root : Path
    seed : int
    context : float in [0, 1]
        Probability that a scene's background is the one tied to its sounding kind.
    scheduler : str or None
        Address of a Dask scheduler; None renders in local processes.
    workers : int or None
        Number of local processes; None takes one per core.

    Returns
    -------
    str
        Fingerprint of the generator's version and settings.

    Raises
    ------
    RenderError
        The disk is full, the folder is not writable or another process is rendering into it, or a clip's file has an
        ending that is not rendered.
    """
    recipe = {"generator": VERSION, "seed": seed, "context": context}
    for medium in (medium for clip in clips for medium in clip.media):
        _encoder(medium)  # an ending that cannot be rendered shall show at once, not after minutes
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(media_root, RenderError))
            if _read_stamp(media_root / STAMP) != recipe:
                _discard(media_root, clips)
                write_json(media_root / STAMP, recipe)
            missing = [clip for clip in clips if not all((media_root / medium).is_file() for medium in clip.media)]
        except OSError as error:
            raise _cannot_write(media_root, error) from None
        tasks = [
            (missing[start : start + _CLIPS_PER_TASK], str(media_root.resolve()), seed, context)
            for start in range(0, len(missing), _CLIPS_PER_TASK)
        ]
        for _ in run_tasks(render_clips, tasks, scheduler=scheduler, workers=workers, label="render"):
            pass
    return fingerprint(recipe)


def render_clips(clips: Sequence[Clip], media_root: str, seed: int, context: float) -> int:
    """Render the media of some clips, in this process. Returns how many; raises RenderError as `render_media` does."""
    for clip in clips:
        scene = plan_scene(clip.clip_id, seed=seed, context=context)
        for medium in clip.media:
            path = Path(media_root) / medium
            content = _encoder(medium)(scene)
            try:
                write_bytes(path, content)
            except OSError as error:
                raise _cannot_write(path, error) from None
    return len(clips)


def _clip(scene: Scene, split: str) -> Clip:
    stem = f"{split}/{scene.clip_id}"
    label = scene.objects[scene.sounding].kind
    if scene.picture is None:
        return Clip(scene.clip_id, video=f"{stem}.mp4", centre_s=scene.centre_s, label=label)
    picture, audio = f"{stem}.{scene.picture}", f"{stem}.{scene.audio}"
    return Clip(scene.clip_id, frame=picture, audio=audio, centre_s=scene.centre_s, label=label)


def _boxes(scene: Scene) -> Iterator[Box]:
    for index, thing in enumerate(scene.objects):
        corners = (round(value, 5) for value in bounding_box(thing))
        yield Box(scene.clip_id, thing.kind, ANNOTATOR, index == scene.sounding, *corners)


def _encoder(medium: str) -> Callable[[Scene], bytes]:
    ending = Path(medium).suffix.lstrip(".")
    if ending == "mp4":
        return encode_video
    if ending in ("png", "jpg"):
        return lambda scene: encode_picture(scene, ending)
    if ending in ("wav", "flac"):
        return lambda scene: encode_audio(scene, ending)
    raise RenderError(f"{medium}: cannot render files that end in {ending!r}; there are mp4, png, jpg, wav, flac")


def _read_stamp(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _discard(media_root: Path, clips: Sequence[Clip]) -> None:
    """Remove what an earlier generator may have left, so that a killed rendering never mixes two of them."""
    for medium in (medium for clip in clips for medium in clip.media):
        (media_root / medium).unlink(missing_ok=True)
    for split in ("train", "validation", "test"):
        for path in (media_root / split).glob(f"{split}-[0-9][0-9][0-9][0-9][0-9].*"):
            path.unlink()


def _cannot_write(path: Path, error: OSError) -> RenderError:
    return RenderError(
        f"{path}: cannot write the rendered media: {error.strerror or error}; make room or make it writable, "
        "or change media_root in the card"
    )
