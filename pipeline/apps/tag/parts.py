"""Tag the clips of one shard: the work of one Dask task, and the file that keeps its result until all are done.

A part is an HDF5 file with ``clip_id`` (clip), ``probability`` (clip, group) float32 and ``reason`` (clip): why the clip has no
probabilities, which are NaN then; empty for all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.apps.tag.classes import Groups
from pipeline.apps.tag.frames import FrameClassifier, FrameModel
from pipeline.apps.tag.sounds import SoundModel, SoundTagger
from pipeline.common.errors import AccessError, MediaError, TaggingError
from pipeline.common.files import fingerprint, storing
from pipeline.common.hdf5 import ascii_ids, read_array, read_attributes, read_ids, reading, write_arrays
from pipeline.common.text_table import printable
from pipeline.manifests.clips import Clip, clip_row, media_path
from pipeline.media.clip import read_audio
from pipeline.shards.reader import ShardSet

FORMAT_VERSION = 1  # change it if the same inputs give other probabilities
_FRAMES = {"cpu": 8, "cuda": 64}  # classified at once


@dataclass(frozen=True)
class Part:
    """The labels of the clips of one shard, on one side.

    Attributes
    ----------
    clip_ids : list of str
    probability : np.ndarray (clip, group) float32
    reasons : dict
        Clip id → why it has no probabilities.
    """

    clip_ids: list[str]
    probability: np.ndarray
    reasons: dict[str, str]


@dataclass(frozen=True)
class FrameTask:
    """Frames of one shard; everything that a worker needs."""

    path: Path
    model: FrameModel
    digest: str
    groups: Groups
    shards: Path
    content: str  # digest of all shards
    shard: int

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the part."""
        inputs = [FORMAT_VERSION, "seen", self.digest, self.model.tiles, self.content, self.shard]
        return fingerprint([*inputs, self.groups.names, self.groups.members])

    def tag(self) -> Part:
        """Classify the frames."""
        device = torch.device(self.model.device)
        if device.type == "cpu":
            torch.set_num_threads(1)  # one core per task, also on workers of an external cluster
        classifier: FrameClassifier = loaded(self.model, self.digest)
        clips = _shards(self.shards, self.content)
        rows, count, found = clips.rows(self.shard), _FRAMES[device.type], []
        for start in range(0, len(rows), count):
            frames, _ = clips.read(rows[start : start + count])
            # n t g -> n g
            found.append(self.groups.collect(classifier(frames), exclusive=self.model.exclusive).max(axis=1))
        return Part([clips.clip_ids[row] for row in rows], np.concatenate(found), {})


@dataclass(frozen=True)
class SoundTask:
    """Audio of the clips of one shard; everything that a worker needs."""

    path: Path
    model: SoundModel
    digest: str
    groups: Groups
    content: str  # digest of all shards: the same media and the same window
    clips: tuple[Clip, ...]
    media_root: Path
    clip_seconds: float
    time_limit_s: float

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the part."""
        clips = [clip_row(clip) for clip in self.clips]
        inputs = [FORMAT_VERSION, "heard", self.digest, self.clip_seconds, self.content, clips]
        return fingerprint([*inputs, self.groups.names, self.groups.members])

    def tag(self) -> Part:
        """Decode and tag the audio, clip by clip."""
        tagger: SoundTagger = loaded(self.model, self.digest)
        probability = np.full((len(self.clips), len(self.groups.names)), np.nan, dtype=np.float32)
        reasons = {}
        for row, clip in enumerate(self.clips):
            try:
                tags = tagger(self._waveform(clip, tagger.sample_rate))
            except MediaError as error:
                reasons[clip.clip_id] = printable(" ".join(str(error).split()))
            else:
                probability[row] = self.groups.collect(tags, exclusive=self.model.exclusive)
        return Part([clip.clip_id for clip in self.clips], probability, reasons)

    def _waveform(self, clip: Clip, sample_rate: int) -> np.ndarray:
        path = media_path(self.media_root, clip.video or clip.audio)
        try:
            return read_audio(
                path,
                centre_s=clip.centre_s,
                clip_seconds=self.clip_seconds,
                sample_rate=sample_rate,
                time_limit_s=self.time_limit_s,
            )
        # Running out of memory or of open files is a problem of the machine, so the clip must not be rejected for it.
        except (MediaError, AccessError, MemoryError):
            raise
        except Exception as error:
            raise MediaError(f"{path}: internal error: {type(error).__name__}: {str(error)[:300]}") from error


def write_part(task: FrameTask | SoundTask) -> None:
    """Tag the clips of a task and write its part. Raises TaggingError if it cannot be written or the model has changed."""
    part = task.tag()
    reasons = [part.reasons.get(clip_id, "").encode() for clip_id in part.clip_ids]
    arrays = {
        "clip_id": (("clip",), ascii_ids(part.clip_ids)),
        "probability": (("clip", "group"), part.probability),
        "reason": (("clip",), np.array(reasons, dtype=f"S{max(1, *map(len, reasons))}")),
    }
    with storing(task.path, TaggingError):
        write_arrays(task.path, arrays, {"fingerprint": task.fingerprint})


def read_part(path: Path) -> Part:
    """Read a part. Raises TaggingError if it is missing or damaged."""
    with reading(path, lambda reason: _damaged(path, reason), sealed=True) as file:
        ids, values = read_ids(file["clip_id"]), read_array(file["probability"])
        texts = [text.decode("utf-8") for text in read_array(file["reason"])]
        return Part(ids, values, {clip_id: text for clip_id, text in zip(ids, texts, strict=True) if text})


def is_done(task: FrameTask | SoundTask) -> bool:
    """Return whether the part of a task is there, intact, and made from the same."""
    try:
        with reading(task.path, lambda reason: _damaged(task.path, reason), sealed=True) as file:
            return bool(read_attributes(file).get("fingerprint") == task.fingerprint)
    except TaggingError:
        return False


# A worker tags several shards. The digest is part of the key: what a path leads to may change.
@lru_cache(maxsize=2)
def loaded(model: FrameModel | SoundModel, digest: str | None) -> Any:
    """Load a classifier; `digest` is the one that it must have. Raises TaggingError if it has another one."""
    found = model.load()
    if digest is not None and found.digest != digest:
        raise TaggingError(f"{model}: changed while clips were tagged, or this worker finds another one")
    return found


@lru_cache(maxsize=1)
def _shards(folder: Path, content: str) -> ShardSet:
    return ShardSet.open(folder)


def clips_of(clip_ids: Sequence[str], clips: Sequence[Clip], where: Path) -> list[Clip]:
    """Return the clips with these ids. Raises TaggingError if the list lacks one."""
    by_id = {clip.clip_id: clip for clip in clips}
    missing = [clip_id for clip_id in clip_ids if clip_id not in by_id]
    if missing:
        raise TaggingError(
            f"{where}: {len(missing)} clips of the shards are not in this list, such as {missing[0]!r}; run `dvc repro extract`"
        )
    return [by_id[clip_id] for clip_id in clip_ids]


def _damaged(path: Path, reason: str) -> TaggingError:
    return TaggingError(f"{path}: damaged or missing ({reason}); delete it and run the command again")
