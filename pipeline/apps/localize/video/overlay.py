"""Render a video with the heat map blended in, keeping its audio.

Each map belongs to one frame and the audio window centered at that frame's timestamp. `maps_per_second` limits how many
are computed; the frames in between show the latest map, without interpolation. Maps are averaged over time only if
`smooth_s` is set, so by default any flicker is the model's. If the verdict is "silent" or "not found", no heat map is
drawn, and a line of text reports the verdict.

Frames are processed as a stream, so memory does not grow with the length of the video.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.apps.localize.localizer import Localization, Localizer
from pipeline.apps.localize.regions import Region
from pipeline.apps.localize.sliding_windows import SlidingWindows
from pipeline.apps.localize.video.canvas import Canvas
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.apps.localize.video.writer import VideoWriter
from pipeline.common.errors import MediaError
from pipeline.figures.heatmap import Layer, blend
from pipeline.media.audio import peak_to_peak_within, use_sounding_track
from pipeline.media.container import Deadline, MediaContainer
from pipeline.media.pixels import to_rgb
from pipeline.media.pyav import MAX_PIXELS
from pipeline.media.video import decoded_frames, frame_time, upright

NOTICES = {"silent": "no sound", "not found": "source not found"}
OnProgress = Callable[[float, float | None], None]
_MAX_WAITING_BYTES = 1 << 28  # size of the frames that wait for their map
_MAX_SIDE = 16_384  # pixels, the limit of x264
_FRAMES_AHEAD = 4  # maximum number of frames queued for the encoder


@dataclass(frozen=True)
class TimedLocalization:
    """One map of a video: timestamp, result, and the sounding regions (empty unless the verdict is "sounding")."""

    time_s: float
    found: Localization
    regions: list[Region]


@dataclass
class VideoSummary:
    """Summary of a rendered video.

    Attributes
    ----------
    frames : int
    seconds : float
        From the beginning to the end of the last frame.
    claimed_s : float or None
        Duration in the container's header.
    verdicts : dict
        Number of maps by verdict.
    audio : str
        "copied" or "re-encoded as AAC".
    """

    frames: int = 0
    seconds: float = 0.0
    claimed_s: float | None = None
    verdicts: dict[str, int] = field(default_factory=lambda: {"sounding": 0, "silent": 0, "not found": 0})
    audio: str = ""


def overlay_video(
    source: Path,
    target: Path,
    localizer: Localizer,
    settings: OverlaySettings,
    *,
    comment: str = "",
    on_progress: OnProgress | None = None,
    on_map: Callable[[TimedLocalization], None] | None = None,
) -> VideoSummary:
    """Render a video with the heat map blended in.

    Parameters
    ----------
    source, target : Path
        `target` is written in place: use `pipeline.common.files.replacing`.
    localizer : Localizer
    settings : OverlaySettings
    comment : str
        Stored in the file's metadata.
    on_progress : callable, optional
        Receives the time reached and the duration in the container's header (None if missing), both in seconds.
    on_map : callable, optional
        Receives every TimedLocalization in order. Regions are only computed if it is given.

    Raises
    ------
    MediaError
        No video or no audio can be decoded, all of the audio is silent, or the time limit is exceeded.
    OSError
        The target cannot be written.
    """
    deadline = Deadline(settings.time_limit_s, setting="--time-limit")
    # The file is opened once per stream, so that no stream has to be buffered in memory for another.
    with (
        MediaContainer(source, deadline=deadline) as video,
        MediaContainer(source, deadline=deadline) as audio,
        MediaContainer(source, deadline=deadline) as track,
    ):
        if audio.audio is None:
            raise MediaError(f"{source}: has no audio; there is nothing to localize")
        if video.video is None:
            raise MediaError(f"{source}: has no video; there is nothing to localize in")
        stream = video.video
        _check_size(source, stream.codec_context.width, stream.codec_context.height)
        use_sounding_track(audio)
        track.track = audio.track
        with MediaContainer(source, deadline=deadline) as whole:
            whole.track = audio.track
            # A constant offset is inaudible; without it, no sample can exceed the peak-to-peak amplitude. The check reads one
            # block of a loud file, and for a silent one it is much cheaper than encoding the video for nothing.
            if peak_to_peak_within(whole, 10 ** (localizer.silence_dbfs / 20)):
                raise MediaError(f"{source}: silent throughout; there is nothing to localize")
        overlay = _Overlay(video, audio, track, target, localizer, settings, comment, on_progress, on_map)
        return overlay.run()


def _check_size(source: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MediaError(f"{source}: frames exceed {MAX_PIXELS // 10**6} megapixels; scale the video down")
    if max(width, height) > _MAX_SIDE:
        raise MediaError(
            f"{source}: frames of {width}×{height} pixels exceed the limit of {_MAX_SIDE} pixels a side; scale the video down"
        )


class _Overlay:
    """State of rendering one video."""

    def __init__(
        self,
        video: MediaContainer,
        audio: MediaContainer,
        track: MediaContainer,
        target: Path,
        localizer: Localizer,
        settings: OverlaySettings,
        comment: str,
        on_progress: OnProgress | None,
        on_map: Callable[[TimedLocalization], None] | None,
    ) -> None:
        self.video, self.track, self.target, self.comment = video, track, target, comment
        self.localizer, self.settings = localizer, settings
        self.on_progress, self.on_map = on_progress, on_map
        clip_seconds, sample_rate = localizer.audio.clip_seconds, localizer.audio.sample_rate
        self.windows = SlidingWindows(audio, clip_seconds=clip_seconds, sample_rate=sample_rate)
        self.summary = VideoSummary()
        self.waiting: list[tuple[Any, Fraction, bool]] = []  # frames, timestamps, and whether a map is due
        self.inputs: list[np.ndarray] = []  # RGB frames of the maps that are due
        self.audio_windows: list[np.ndarray] = []
        self.recent: deque[tuple[Fraction, np.ndarray]] = deque()
        self.layer: Layer | None = None
        self.next_map: Fraction | None = None
        self.writer: VideoWriter | None = None
        self.canvas: Canvas | None = None
        # One thread, because the encoder needs frames in order. It runs in parallel with decoding, since PyAV releases the GIL.
        self.encoder = ThreadPoolExecutor(1)
        self.encoding: deque[Future[None]] = deque()

    def run(self) -> VideoSummary:
        """Render the whole video."""
        length = self.video.container.duration
        self.summary.claimed_s = None if length is None else length / 1e6
        time_base, rate = self.video.stream("video").time_base, self.video.stream("video").average_rate
        # Assumed duration of the last frame if the file does not store it.
        usual = 1 / Fraction(rate) if rate else Fraction(1, 25)
        previous: tuple[Any, Fraction] | None = None
        try:
            for frame in decoded_frames(self.video):
                self.video.deadline.check(self.video.path)
                time = frame_time(self.video, frame) * time_base
                # Damaged files repeat or reverse timestamps; the output's must increase.
                if previous is not None and time <= previous[1]:
                    time = previous[1] + usual / 1000
                self._take(frame, time)
                previous = frame, time
            if previous is None:
                raise MediaError(f"{self.video.path}: no frame can be decoded; the file is damaged or truncated")
            self._flush(end=previous[1] + (previous[0].duration * time_base if previous[0].duration else usual))
            if self.summary.verdicts["silent"] == sum(self.summary.verdicts.values()):
                raise MediaError(f"{self.video.path}: silent in every audio window; there is nothing to localize")
            while self.encoding:
                self.encoding.popleft().result()
        # BaseException, because Ctrl-C must stop the encoder thread and close the file too.
        except BaseException as error:
            self.encoder.shutdown(cancel_futures=True)
            if self.writer is not None:
                self.writer.__exit__(type(error), error, error.__traceback__)
            raise
        self.encoder.shutdown()
        if self.writer is not None:
            self.writer.__exit__(None, None, None)
        return self.summary

    def _take(self, frame: Any, time: Fraction) -> None:
        rate = self.settings.maps_per_second
        # One millisecond of slack, because timestamps are rounded: every third frame must remain every third.
        due = self.next_map is None or time >= self.next_map - Fraction(1, 1000)
        held = frame.width * frame.height * 3 // 2 * len(self.waiting)
        if (due and len(self.inputs) >= self.settings.batch_size) or held > _MAX_WAITING_BYTES:
            self._flush(end=time)
        if due:
            self.inputs.append(upright(to_rgb(frame, self.video.path), frame))
            self.audio_windows.append(self.windows.window(time))
            step = 1 / Fraction(rate) if rate else Fraction(0)
            planned = (time if self.next_map is None else self.next_map) + step
            # After a long gap, restart the schedule instead of catching up.
            self.next_map = planned if planned > time else time + step
        self.waiting.append((frame, time, due))

    def _flush(self, *, end: Fraction) -> None:
        """Compute the maps that are due and write all waiting frames; `end` is the end time of the last one."""
        found = iter(self.localizer.localize_batch(self.inputs, self.audio_windows) if self.inputs else ())
        times = [time for _, time, _ in self.waiting[1:]] + [end]
        for (frame, time, due), until in zip(self.waiting, times, strict=True):
            if self.writer is None or self.canvas is None:
                self.canvas = Canvas(frame, self.video.stream("video"))
                self.writer = self._open(self.canvas)
            if due:
                self.layer = self._layer(next(found), time, self.canvas)
            planes = self.canvas.planes(frame, self.video.path)
            if self.layer is not None:
                blend(planes, self.layer)
            self._write(planes, time, until - time)
            self.summary.frames += 1
            self.summary.seconds = float(until - self.video.zero)
        if self.on_progress is not None:
            self.on_progress(self.summary.seconds, self.summary.claimed_s)
        self.waiting.clear()
        self.inputs.clear()
        self.audio_windows.clear()

    def _write(self, planes: np.ndarray, time: Fraction, duration: Fraction) -> None:
        """Queue a frame for the encoder thread, which runs while the next frames are decoded and blended."""
        if self.writer is not None:
            self.encoding.append(self.encoder.submit(self.writer.write, planes, time=time, duration=duration))
        if len(self.encoding) > _FRAMES_AHEAD:
            self.encoding.popleft().result()

    def _layer(self, found: Localization, time: Fraction, canvas: Canvas) -> Layer:
        self.summary.verdicts[found.verdict] += 1
        sounding = found.verdict == "sounding"
        response = self._smoothed(found.response, time) if sounding else found.response
        if self.on_map is not None:
            regions = self.localizer.regions(response) if sounding else []
            self.on_map(TimedLocalization(float(time - self.video.zero), found, regions))
        return canvas.heat(self.localizer.heat(response)) if sounding else canvas.notice(NOTICES[found.verdict])

    def _smoothed(self, response: np.ndarray, time: Fraction) -> np.ndarray:
        if not self.settings.smooth_s:
            return response
        self.recent.append((time, response))
        while self.recent[0][0] <= time - Fraction(self.settings.smooth_s):
            self.recent.popleft()
        return np.stack([each for _, each in self.recent]).mean(axis=0)

    def _open(self, canvas: Canvas) -> VideoWriter:
        writer = VideoWriter(
            self.target,
            width=canvas.width,
            height=canvas.height,
            time_base=self.video.stream("video").time_base,
            audio=self.track,
            zero=self.video.zero,
            colors=canvas.colors,
            aspect=canvas.aspect,
            comment=self.comment,
            crf=self.settings.crf,
            preset=self.settings.preset,
        )
        self.summary.audio = writer.audio
        return writer
