"""The demo dataset: a small synthetic world, rendered from a seed into real video files.

Each clip is a short shot of two to four objects in front of a cluttered background. One object sounds, with the timbre
of its kind. The silent objects are of other kinds, which sound in other clips, so a single clip does not reveal which
object is the source: only the audio-visual co-occurrence over many clips does. A tenth of the clips are a frame file
plus an audio file instead of a video.

``write_manifest(Path("data_manifests/demo"), seed=0)`` reproduces the committed lists in ``data_manifests/demo``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.common.cluster import run_tasks
from pipeline.common.errors import RenderError
from pipeline.common.files import fingerprint, locked, remove_leftovers, write_bytes, write_json, write_text
from pipeline.common.project import CARD_FILE
from pipeline.common.reading import read_json
from pipeline.datasets.demo.media import encode_audio, encode_image, encode_video
from pipeline.datasets.demo.plan import plan_scene
from pipeline.datasets.demo.scene import Scene, bounding_box
from pipeline.manifests.boxes import Box, boxes_path, write_boxes
from pipeline.manifests.clips import Clip, write_clips

VERSION = 1  # of the generator; a new number makes existing media stale, so everything is rendered again
STAMP = ".generated.json"
ANNOTATOR = "renderer"
_CLIPS_PER_TASK = 16  # amortizes the overhead of a task, and still balances the load
_CARD = """\
# A small synthetic dataset, rendered from a seed, for trying out the whole pipeline within minutes on any computer.
# These values are ours, not the paper's. With them, two CPU cores are enough to see that the method learns.
title: {title}
source: rendered by pipeline/datasets/demo/dataset.py
license: Apache-2.0, like the program that renders it
media_root: {media_root}
image_size: 128  # objects are about 50 pixels wide, enough to show their textures, at a quarter of the cost of 256²
audio:
  sample_rate: 16000  # the paper's second setting; all timbres are below 8 kHz
  clip_seconds: 2.0  # long enough for a few strokes of the slowest instrument; keeps the spectrogram small
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
  # Probability that the background is the one tied to the sounding kind. Above 0, the background predicts the sound, as
  # a concert stage predicts a guitar. The intra-frame term (Eq. 5) is meant for this case.
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
    """Write the card, the clip lists, and the boxes of the validation and test splits.

    Parameters
    ----------
    folder : Path
        For example ``data_manifests/demo``.
    seed : int
        Seed of the dataset; the same seed gives the same files.
    train, validation, test : int
        Number of clips in each split, at least 1. With `validation` 0 there is no validation split.
    context : float in [0, 1]
        Written to the card; the lists do not depend on it.
    title, media_root : str
        Written to the card.
    """
    values = {"seed": seed, "context": float(context), "title": json.dumps(title), "media_root": json.dumps(media_root)}
    write_text(folder / CARD_FILE, _CARD.format(**values))
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        if count == 0:
            continue
        scenes = [plan_scene(f"{split}-{index:05d}", seed=seed) for index in range(count)]
        write_clips(folder / f"{split}.csv", [_clip(scene, split) for scene in scenes])
        if split != "train":
            write_boxes(boxes_path(folder, split), [box for scene in scenes for box in _boxes(scene)])


def render_media(
    clips: Sequence[Clip],
    *,
    media_root: Path,
    seed: int,
    context: float,
    scheduler: str | None = None,
    workers: int | None = None,
) -> str:
    """Render the media files that the clips list and that do not exist yet.

    Existing files are kept if the stamp file in `media_root` shows the same generator version, `seed` and `context`.
    Otherwise they are removed and rendered again. The output does not depend on `workers`.

    Parameters
    ----------
    clips : sequence of Clip
        Only the ids and paths are used, not `centre_s` and `label`.
    media_root : Path
    seed : int
    context : float in [0, 1]
        Probability that a scene's background is the one tied to its sounding kind.
    scheduler : str or None
        Address of a Dask scheduler; None renders in local processes.
    workers : int or None
        Number of local processes; None starts one per core.

    Returns
    -------
    str
        Fingerprint of the generator's version and settings.

    Raises
    ------
    RenderError
        The disk is full, the folder is not writable, another process is rendering into it, a file has a suffix that
        cannot be rendered, or media exist that this program has not rendered.
    """
    recipe = {"generator": VERSION, "seed": seed, "context": context}
    for medium in (medium for clip in clips for medium in clip.media):
        _encoder(medium)  # reject unsupported suffixes now, not after minutes of rendering
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(media_root, RenderError))
            remove_leftovers(media_root, *{(media_root / medium).parent for clip in clips for medium in clip.media})
            stamp = _read_stamp(media_root / STAMP)
            if stamp is None:
                _check_own(media_root, clips)
            if stamp != recipe:
                # The stamp is written after the old media are gone: if interrupted in between, this happens again.
                _discard(media_root, clips)
                write_json(media_root / STAMP, recipe)
            missing = [clip for clip in clips if not all((media_root / medium).is_file() for medium in clip.media)]
        except OSError as error:
            raise _cannot_write(media_root, error) from None
        tasks = [
            (missing[start : start + _CLIPS_PER_TASK], str(media_root.resolve()), seed, context)
            for start in range(0, len(missing), _CLIPS_PER_TASK)
        ]
        # Results are not needed, but the iterator must be exhausted for all tasks to run.
        for _ in run_tasks(render_clips, tasks, scheduler=scheduler, workers=workers, label="render"):
            pass
    return fingerprint(recipe)


def render_clips(clips: Sequence[Clip], media_root: str, seed: int, context: float) -> int:
    """Render the media of some clips in this process, and return the number of clips.

    Raises
    ------
    RenderError
        As `render_media`.
    """
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
    if scene.image is None:
        return Clip(scene.clip_id, video=f"{stem}.mp4", centre_s=scene.centre_s, label=label)
    frame, audio = f"{stem}.{scene.image}", f"{stem}.{scene.audio}"
    return Clip(scene.clip_id, frame=frame, audio=audio, centre_s=scene.centre_s, label=label)


def _boxes(scene: Scene) -> Iterator[Box]:
    for index, thing in enumerate(scene.objects):
        # Rounded, so that the committed lists do not depend on the last bits of a platform's math library.
        corners = (round(value, 5) for value in bounding_box(thing))
        yield Box(scene.clip_id, thing.kind, ANNOTATOR, index == scene.sounding, *corners)


def _encoder(medium: str) -> Callable[[Scene], bytes]:
    suffix = Path(medium).suffix.lstrip(".")
    if suffix == "mp4":
        return encode_video
    if suffix in ("png", "jpg"):
        return lambda scene: encode_image(scene, suffix)
    if suffix in ("wav", "flac"):
        return lambda scene: encode_audio(scene, suffix)
    raise RenderError(f"{medium}: cannot render {suffix!r} files; use mp4, png, jpg, wav or flac")


def _read_stamp(path: Path) -> object:
    try:
        content: object = read_json(path, RenderError)
    except RenderError:
        return None
    return content


def _check_own(media_root: Path, clips: Sequence[Clip]) -> None:
    """Raise RenderError if a file would be replaced that was not rendered, such as a video of the user with a copied card."""
    for medium in (medium for clip in clips for medium in clip.media):
        if (media_root / medium).exists():
            raise RenderError(
                f"{media_root / medium}: exists, but was not rendered by this program ({STAMP} is missing there), and is not "
                "replaced; for media of your own, remove `render` from the dataset's card; otherwise move the file away"
            )


def _discard(media_root: Path, clips: Sequence[Clip]) -> None:
    """Remove all media of an earlier generator, so that an interrupted rendering never mixes two versions."""
    for medium in (medium for clip in clips for medium in clip.media):
        (media_root / medium).unlink(missing_ok=True)
    for split in ("train", "validation", "test"):
        for path in (media_root / split).glob(f"{split}-[0-9][0-9][0-9][0-9][0-9].*"):
            path.unlink()


def _cannot_write(path: Path, error: OSError) -> RenderError:
    return RenderError(
        f"{path}: cannot write the rendered media: {error.strerror or error}; free some disk space, fix the "
        "permissions, or change media_root in the card"
    )
