"""Cuts solo videos into audible seconds, once, so that composing mosaics requires no further decoding.

Conventions: second k of a video is [k, k + 1) s. A cut video is three files in one folder: ``ID.frames.npy``, uint8
(second, row, column, channel), one frame for each audible second; ``ID.audio.npy``, float32 (sample,), the whole audio
track, mono, peak 1; and ``ID.json``, written last, with the seconds and a fingerprint of file and settings. A video whose
fingerprint matches is not decoded again, whatever the seed and size of the dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.common.cluster import run_tasks
from pipeline.common.errors import MediaError
from pipeline.common.files import fingerprint, replacing, write_json
from pipeline.common.reading import read_json
from pipeline.datasets.music.boxes import BoxedFrame
from pipeline.datasets.music.schedule import Segment
from pipeline.datasets.music.solos import Solo
from pipeline.media.clip import read_audio, read_frame
from pipeline.media.container import Deadline, MediaContainer

CUT_VERSION = 1
_LONGEST_MESSAGE = 300  # of an exception from a library, in characters
MAX_SECONDS = 1000  # the published lists use no more than this of each video


@dataclass(frozen=True)
class CutSettings:
    """How solos are cut. After a change, all videos are cut again."""

    frame_size: int  # side of a stored frame in pixels, that of a quadrant
    sample_rate: int  # Hz
    silence_db: float  # a second with a lower RMS is dropped as silent; relative to the video's loudest sample
    time_limit_s: float  # for decoding one frame, and for decoding the audio track


@dataclass(frozen=True)
class Cut:
    """Result of cutting one video: its audible seconds with the timestamps of their frames, or why there are none."""

    seconds: tuple[int, ...] = ()
    frame_s: tuple[float, ...] = ()
    reason: str = ""


def cut_solos(
    solos: Sequence[Solo],
    boxed: Mapping[str, Mapping[int, BoxedFrame]],
    folder: Path,
    *,
    settings: CutSettings,
    scheduler: str | None,
    workers: int | None,
) -> tuple[list[Segment], list[tuple[str, str, str]]]:
    """Cut all videos, one task per video.

    Parameters
    ----------
    solos : sequence of Solo
    boxed : mapping of video id to mapping of second to BoxedFrame
        Annotated frames. An annotated second is represented by its annotated frame, any other by its middle frame.
    folder : Path
        Folder of the cut videos.
    settings : CutSettings
    scheduler, workers
        As in `pipeline.common.cluster.run_tasks`.

    Returns
    -------
    segments : list of Segment
        In the order of `solos`, then of time.
    rejects : list of (video id, instrument, reason)
        Videos without a usable second.
    """
    tasks = [
        (solo.path, folder, solo.video, {k: frame.time_s for k, frame in boxed.get(solo.video, {}).items()}, settings)
        for solo in solos
    ]
    cuts = dict(run_tasks(cut_solo, tasks, scheduler=scheduler, workers=workers, label="cut solos"))
    segments, rejects = [], []
    for index, solo in enumerate(solos):
        cut, frames = cuts[index], boxed.get(solo.video, {})
        if not cut.seconds:
            rejects.append((solo.video, solo.instrument, cut.reason))
        for row, (second, frame_s) in enumerate(zip(cut.seconds, cut.frame_s, strict=True)):
            boxes = frames[second].boxes if second in frames else ()
            segments.append(Segment(solo.video, solo.instrument, second, row, frame_s, boxes))
    return segments, rejects


def cut_solo(path: Path, folder: Path, video: str, frame_times: Mapping[int, float], settings: CutSettings) -> Cut:
    """Cut one video into `folder`, unless that has been done already.

    Parameters
    ----------
    path : Path
        The video file.
    folder : Path
        Output folder.
    video : str
        Its id, used as the file name of the output.
    frame_times : mapping of second to timestamp in s
        Timestamps of the annotated frames. Other seconds use the middle.
    settings : CutSettings

    Returns
    -------
    Cut
        If the video cannot be decoded or has no audible second, `reason` is set.
    """
    made_by = _made_by(path, frame_times, settings)
    if (done := _read_cut(folder / f"{video}.json", made_by)) is not None:
        return done
    try:
        audio = _read_track(path, settings)
        seconds = audible_seconds(audio, sample_rate=settings.sample_rate, silence_db=settings.silence_db)
        cut, frames = _read_frames(path, seconds, frame_times, settings)
    except MediaError as error:
        return Cut(reason=str(error))
    except MemoryError:
        raise
    except Exception as error:
        # One video that crashes a decoder must not abort hours of work.
        text = " ".join(str(error).split())[:_LONGEST_MESSAGE]
        return Cut(reason=f"{path}: internal error: {type(error).__name__}: {text}")
    if not cut.seconds:
        return cut
    # An index of other settings must not outlive its arrays.
    (folder / f"{video}.json").unlink(missing_ok=True)
    for name, array in (("frames", frames), ("audio", audio)):
        with replacing(folder / f"{video}.{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, array, allow_pickle=False)
    write_json(folder / f"{video}.json", {"made_by": made_by, "seconds": cut.seconds, "frame_s": cut.frame_s})
    return cut


def audible_seconds(audio: np.ndarray, *, sample_rate: int, silence_db: float) -> list[int]:
    """Return the indices of the full seconds that are not silent.

    Parameters
    ----------
    audio : np.ndarray [shape=(sample,)]
        Full scale is 1.
    sample_rate : int
        Hz.
    silence_db : float
        A second counts as silent if its RMS level is below this, in dBFS.
    """
    n_seconds = len(audio) // sample_rate
    power = np.square(audio[: n_seconds * sample_rate].reshape(n_seconds, sample_rate), dtype=np.float64).mean(axis=1)
    return np.flatnonzero(power >= 10 ** (silence_db / 10)).tolist()


def load_frame(folder: Path, video: str, row: int) -> np.ndarray:
    """Return one frame of a cut video, uint8 (row, column, channel)."""
    return np.array(np.load(folder / f"{video}.frames.npy", mmap_mode="r", allow_pickle=False)[row])


def load_audio(folder: Path, video: str, second: int, *, shift: int, sample_rate: int) -> np.ndarray:
    """Return one second of a cut video's audio, float32 (sample,), delayed by `shift` samples: x(t − shift).

    A shifted window reads the recording's own samples from before or after the second, and zeros beyond its ends.
    """
    track = np.load(folder / f"{video}.audio.npy", mmap_mode="r", allow_pickle=False)
    start = second * sample_rate - shift
    inside = track[max(start, 0) : start + sample_rate]
    before = max(-start, 0)
    return np.pad(inside, (before, sample_rate - before - len(inside)))


def _made_by(path: Path, frame_times: Mapping[int, float], settings: CutSettings) -> str:
    stat = path.stat()
    times = sorted(frame_times.items())
    return fingerprint([CUT_VERSION, stat.st_size, stat.st_mtime_ns, times, *vars(settings).values()])


def _read_cut(path: Path, made_by: str) -> Cut | None:
    try:
        content = read_json(path, MediaError)
        return Cut(tuple(content["seconds"]), tuple(content["frame_s"])) if content["made_by"] == made_by else None
    except (MediaError, KeyError, TypeError):
        return None  # missing or damaged: cut again


def _read_track(path: Path, settings: CutSettings) -> np.ndarray:
    """Decode the audio track, peak 1. It is zero-padded if it is shorter than the container claims."""
    n_seconds = min(_whole_seconds(path, settings), MAX_SECONDS)
    return read_audio(
        path,
        centre_s=n_seconds / 2,
        clip_seconds=float(n_seconds),
        sample_rate=settings.sample_rate,
        time_limit_s=settings.time_limit_s,
    )


def _whole_seconds(path: Path, settings: CutSettings) -> int:
    with MediaContainer(path, deadline=Deadline(settings.time_limit_s)) as source:
        length_s = 2 * (source.timestamp(None) - source.zero)
    if length_s < 1:
        raise MediaError(f"{path}: lasts only {float(length_s):.3f} s; a solo must last at least 1 s")
    return int(length_s)


def _read_frames(
    path: Path, seconds: Iterable[int], frame_times: Mapping[int, float], settings: CutSettings
) -> tuple[Cut, np.ndarray]:
    """Read one frame for each second. Seconds without a readable frame are skipped."""
    kept: list[int] = []
    times: list[float] = []
    frames: list[np.ndarray] = []
    reason = f"{path}: no audible second; all are below {settings.silence_db:g} dB"
    for second in seconds:
        time_s = frame_times.get(second, second + 0.5)
        try:
            frame = read_frame(
                path, centre_s=time_s, image_size=settings.frame_size, time_limit_s=settings.time_limit_s
            )
        except MediaError as error:
            reason = str(error)
            continue
        kept.append(second)
        times.append(time_s)
        frames.append(frame)
    empty = np.empty((0, settings.frame_size, settings.frame_size, 3), np.uint8)
    return Cut(tuple(kept), tuple(times), "" if kept else reason), np.stack(frames) if frames else empty
