"""Solo videos cut into audible seconds, once, so that mosaics can be composed from them without decoding again.

Conventions: second k of a video is [k, k + 1) s. A cut video is three files in one folder: ``ID.frames.npy`` uint8
(second, row, column, channel) with one frame of each audible second; ``ID.audio.npy`` float32 (sample,), the whole
sound track, mono, peak 1; ``ID.json``, written last, with the seconds and what made them. A
video whose ``ID.json`` fits its file and the settings is not decoded again, whatever seed or size the set then has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.common.cluster import run_tasks
from pipeline.common.errors import MediaError
from pipeline.common.files import fingerprint, replacing, write_json
from pipeline.datasets.music.boxes import BoxedFrame
from pipeline.datasets.music.schedule import Segment
from pipeline.datasets.music.solos import Solo
from pipeline.media.clip import read_audio, read_frame
from pipeline.media.container import Deadline, MediaContainer

CUT_VERSION = 1
_LONGEST_MESSAGE = 300  # of a fault that is not ours
MAX_SECONDS = 1000  # of a video; so the published lists cut theirs


@dataclass(frozen=True)
class CutSettings:
    """How a solo is cut. A change cuts all videos again."""

    frame_size: int  # side of a stored frame, pixels: a quadrant of the mosaic
    sample_rate: int  # Hz
    silence_db: float  # RMS level of a second, dB below the video's loudest sample, at which it is dropped as silent
    time_limit_s: float  # for one frame, and for the sound track


@dataclass(frozen=True)
class Cut:
    """What is left of one video: its audible seconds, the time of each one's frame, or why there are none."""

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
    """Cut all videos, one task each.

    Parameters
    ----------
    solos : sequence of Solo
    boxed : mapping of video id to mapping of second to BoxedFrame
        The annotated frames: such a second is represented by that very frame, any other by the frame in its middle.
    folder : Path
        Where the cut videos lie.
    settings : CutSettings
    scheduler, workers
        As in `pipeline.common.cluster.run_tasks`.

    Returns
    -------
    segments : list of Segment
        In the order of `solos` and of time.
    rejects : list of (video id, instrument, reason)
        Videos that give no second.
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
    """Cut one video into `folder`, unless that is done already.

    Parameters
    ----------
    path : Path
        The video file.
    folder : Path
        Where its cut goes.
    video : str
        Its id, the name of the cut.
    frame_times : mapping of second to time in s
        Seconds whose frame is prescribed; of the others the middle is taken.
    settings : CutSettings

    Returns
    -------
    Cut
        A video that cannot be decoded, or has no audible second, has `reason` set.
    """
    made_by = _made_by(path, frame_times, settings)
    if (done := _read_cut(folder / f"{video}.json", made_by)) is not None:
        return done
    try:
        sound = _read_track(path, settings)
        seconds = audible_seconds(sound, sample_rate=settings.sample_rate, silence_db=settings.silence_db)
        cut, frames = _read_frames(path, seconds, frame_times, settings)
    except MediaError as error:
        return Cut(reason=str(error))
    except MemoryError:
        raise
    except Exception as error:
        # One video that a decoder trips over must not end hours of work.
        text = " ".join(str(error).split())[:_LONGEST_MESSAGE]
        return Cut(reason=f"{path}: internal error: {type(error).__name__}: {text}")
    if not cut.seconds:
        return cut
    for name, array in (("frames", frames), ("audio", sound)):
        with replacing(folder / f"{video}.{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, array, allow_pickle=False)
    write_json(folder / f"{video}.json", {"made_by": made_by, "seconds": cut.seconds, "frame_s": cut.frame_s})
    return cut


def audible_seconds(sound: np.ndarray, *, sample_rate: int, silence_db: float) -> list[int]:
    """Return the whole seconds of `sound` that are not silent.

    Parameters
    ----------
    sound : np.ndarray [shape=(sample,)]
        Full scale is 1.
    sample_rate : int
        Hz.
    silence_db : float
        A second is dropped if its RMS level is below this, in dB of full scale.
    """
    n_seconds = len(sound) // sample_rate
    power = np.square(sound[: n_seconds * sample_rate].reshape(n_seconds, sample_rate), dtype=np.float64).mean(axis=1)
    return np.flatnonzero(power >= 10 ** (silence_db / 10)).tolist()


def load_frame(folder: Path, video: str, row: int) -> np.ndarray:
    """Return one frame of a cut video, uint8 (row, column, channel)."""
    return np.array(np.load(folder / f"{video}.frames.npy", mmap_mode="r", allow_pickle=False)[row])


def load_sound(folder: Path, video: str, second: int, *, shift: int, sample_rate: int) -> np.ndarray:
    """Return one second of a cut video's sound, float32 (sample,), `shift` samples late: x(t − shift).

    The samples that a shift brings in are the recording's own, from beside the second; beyond its ends, zeros.
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
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if content.get("made_by") != made_by:
        return None
    return Cut(tuple(content["seconds"]), tuple(content["frame_s"]))


def _read_track(path: Path, settings: CutSettings) -> np.ndarray:
    """Decode the sound track, peak 1; what lies beyond its end, should the container overstate it, is silence."""
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
        raise MediaError(f"{path}: lasts {float(length_s):.3f} s; a solo must last a second at least")
    return int(length_s)


def _read_frames(
    path: Path, seconds: Iterable[int], frame_times: Mapping[int, float], settings: CutSettings
) -> tuple[Cut, np.ndarray]:
    """Read one frame for each second; a second without a readable frame is left out."""
    kept: list[int] = []
    times: list[float] = []
    frames: list[np.ndarray] = []
    reason = f"{path}: no audible second (all below {settings.silence_db:g} dB)"
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
