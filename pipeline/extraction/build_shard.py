"""Build one shard from its clips: the work of one Dask task.

Clips are decoded one by one and written in small groups, so memory does not grow with the shard. A shard's bytes depend
only on its clips and the settings, not on the machine's paths, the time or other shards.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.common.access import may_pass
from pipeline.common.config import EXACT, AudioSettings, ShardEncoding
from pipeline.common.errors import AccessError, ExtractionError, ManifestError, MediaError, ShardError
from pipeline.common.files import fingerprint, storing
from pipeline.common.text_table import printable
from pipeline.extraction.plan import clips_digest
from pipeline.manifests.clips import Clip, media_path
from pipeline.manifests.ranges import ClipRange
from pipeline.media.clip import DecodedClip, decode_clip
from pipeline.media.log_mel import log_mel, mel_frequencies
from pipeline.shards.reader import read_rejects, read_shard_fingerprint, shard_digest, verify_shard
from pipeline.shards.stamps import Stamp, file_stamp
from pipeline.shards.writer import FORMAT_VERSION, ShardWriter

# Clips held in memory at a time; the result does not depend on it.
_GROUP = 16
# Ours: a clip must not be rejected because a network drive did not answer once.
_RETRY_AFTER_S = (1, 5)
# Characters of an unexpected error's message that are kept as the reason.
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class ShardTask:
    """Everything that a worker needs to build one shard."""

    path: Path
    clips: ClipRange
    clips_digest: str
    media_root: Path
    audio: AudioSettings
    image_size: int
    media: str
    clip_time_limit_s: float
    encoding: ShardEncoding = EXACT

    @property
    def fingerprint(self) -> str:
        """Hash of the clips and settings that determine the shard's bytes."""
        # Not the media root and the time limit: they decide whether a clip is usable, but not what a decoded clip is.
        inputs = {
            "format_version": FORMAT_VERSION,
            "audio": self.audio.model_dump(),
            "image_size": self.image_size,
            "media": self.media,
            "clips": self.clips_digest,
            **self.encoding.model_dump(exclude_defaults=True),
        }
        return fingerprint(inputs)


@dataclass(frozen=True)
class FinishedShard:
    """What a task returns.

    Attributes
    ----------
    kept : bool
        Whether the shard was there already, and intact.
    digest : str
        See `pipeline.shards.reader.shard_digest`.
    stamp : Stamp
        Of the file.
    rejects : dict
        Reason for each rejected clip id.
    """

    kept: bool
    digest: str
    stamp: Stamp
    rejects: dict[str, str]


def build_shard(task: ShardTask) -> FinishedShard:
    """Build one shard, or keep an existing one that is intact and has the same fingerprint.

    Raises
    ------
    ExtractionError
        The shard cannot be written.
    ManifestError
        The clip list changed after the task had been planned.
    """
    if _is_up_to_date(task):
        return FinishedShard(True, shard_digest(task.path), file_stamp(task.path), dict(read_rejects(task.path)))
    torch.set_num_threads(1)  # one core per task, also on workers of an external cluster
    clips = task.clips.read()
    if clips_digest(clips) != task.clips_digest:
        raise ManifestError(f"{task.clips.path}: changed while its clips were being extracted; run again")
    settings = {"fingerprint": task.fingerprint, **task.audio.model_dump(), "image_size": task.image_size}
    rejects: dict[str, str] = {}
    writing = ShardWriter.create(
        task.path,
        settings=settings,
        capacity=task.clips.n_clips,
        mel_hz=mel_frequencies(n_mels=task.audio.n_mels, sample_rate=task.audio.sample_rate),
        n_frames=task.audio.n_frames,
        encoding=task.encoding,
    )
    with storing(task.path, ExtractionError), writing as shard:
        for group in _groups(task, clips, rejects):
            _append(shard, group, task.audio)
        for clip_id, reason in rejects.items():
            shard.reject(clip_id, reason)
    return FinishedShard(False, shard_digest(task.path), file_stamp(task.path), rejects)


def _groups(task: ShardTask, clips: Sequence[Clip], rejects: dict[str, str]) -> Iterator[list[tuple[str, DecodedClip]]]:
    """Decode the task's clips one by one and yield them in small groups; add unusable clips to `rejects`."""
    group: list[tuple[str, DecodedClip]] = []
    for clip in clips:
        try:
            group.append((clip.clip_id, _decode_with_retries(clip, task)))
        except MediaError as error:
            # Without the media root, and unquoted if it is a URL: a shard's bytes do not depend on where it was built.
            reason = str(error)
            for medium in clip.media:
                reason = reason.replace(str(media_path(task.media_root, medium)), medium)
            rejects[clip.clip_id] = printable(" ".join(reason.split()))
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group


def _decode_with_retries(clip: Clip, task: ShardTask) -> DecodedClip:
    for wait_s in _RETRY_AFTER_S:
        try:
            return _decode(clip, task)
        except MediaError as error:
            if not may_pass(error):
                raise
            time.sleep(wait_s)
    try:
        return _decode(clip, task)
    except MediaError as error:
        # A bad disk reports EIO for the same file each time. Everything else is the drive's fault, so the clip must not be rejected.
        if not may_pass(error) or error.errno == errno.EIO:
            raise
        problem = AccessError(str(error))
        problem.errno = error.errno
        raise problem from None


def _decode(clip: Clip, task: ShardTask) -> DecodedClip:
    paths = {
        name: media_path(task.media_root, medium) if medium else None
        for name, medium in (("video", clip.video), ("frame", clip.frame), ("audio", clip.audio))
    }
    try:
        return decode_clip(
            **paths,
            centre_s=clip.centre_s,
            image_size=task.image_size,
            sample_rate=task.audio.sample_rate,
            clip_seconds=task.audio.clip_seconds,
            time_limit_s=task.clip_time_limit_s,
        )
    # Running out of memory or of open files is a problem of the machine, so the clip must not be rejected for it.
    except (MediaError, AccessError, MemoryError):
        raise
    except Exception as error:
        # A single clip that breaks a decoder must not end hours of work. If many do, max_reject_fraction stops the split.
        raise MediaError(f"internal error: {type(error).__name__}: {str(error)[:_LONGEST_MESSAGE]}") from error


def _append(shard: ShardWriter, group: Sequence[tuple[str, DecodedClip]], audio: AudioSettings) -> None:
    waveforms = torch.from_numpy(np.stack([decoded.waveform for _, decoded in group]))
    spectrograms = log_mel(waveforms, **audio.model_dump(exclude={"clip_seconds"}))
    shard.append(
        [clip_id for clip_id, _ in group],
        frame=np.stack([decoded.frame for _, decoded in group]),
        log_mel=spectrograms.numpy(),
        source_time_s=np.array([decoded.source_time_s for _, decoded in group]),
    )


def _is_up_to_date(task: ShardTask) -> bool:
    try:
        # The fingerprint is in the header. Verification reads the whole file, so it comes second.
        if read_shard_fingerprint(task.path) != task.fingerprint:
            return False
        verify_shard(task.path)
    except ShardError:
        return False
    return True
