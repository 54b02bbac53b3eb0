"""A video → the same video with the heat map over it and its sound kept.

Every map belongs to one picture and the window of sound centered at that picture's time. `maps_per_second` bounds how many are
computed; the pictures in between show the last one *held*, nothing is interpolated. Unless `smooth_s` asks for it, maps are
not averaged over time either: what flickers in the output flickers in the model. Where the verdict is "silent" or "not found"
the picture stays as it is, and a line of text says so.

Pictures stream through, so memory does not grow with the length of the video.
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
from pipeline.apps.localize.sliding_windows import SlidingWindows, stays_within
from pipeline.apps.localize.video.canvas import Canvas, rgb_of
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.apps.localize.video.writer import VideoWriter
from pipeline.common.errors import MediaError
from pipeline.figures.heatmap import Layer, blend
from pipeline.media.container import MAX_PIXELS, Deadline, MediaContainer
from pipeline.media.video import decoded_frames, frame_time

NOTICES = {"silent": "no sound", "not found": "source not found"}
Tell = Callable[[float, float | None], None]
_BYTES_HELD = 1 << 28  # of pictures that wait for their map
_PICTURES_AHEAD = 4  # of the coder


@dataclass(frozen=True)
class Instant:
    """One map of a video: when, what the model said, and the parts of the sounding region (none where nothing sounds)."""

    time_s: float
    found: Localization
    regions: list[Region]


@dataclass
class VideoSummary:
    """What became of a video.

    Attributes
    ----------
    frames : int
    seconds : float
        From the beginning to the end of the last picture.
    claimed_s : float or None
        What the container says.
    verdicts : dict
        Number of maps by verdict.
    sound : str
        "copied" or "coded as AAC".
    """

    frames: int = 0
    seconds: float = 0.0
    claimed_s: float | None = None
    verdicts: dict[str, int] = field(default_factory=lambda: {"sounding": 0, "silent": 0, "not found": 0})
    sound: str = ""


def overlay_video(
    source: Path,
    target: Path,
    localizer: Localizer,
    settings: OverlaySettings,
    *,
    comment: str = "",
    tell: Tell | None = None,
    note: Callable[[Instant], None] | None = None,
) -> VideoSummary:
    """Write a video with the heat map over it.

    Parameters
    ----------
    source, target : Path
        `target` is written in place: use `pipeline.common.files.replacing`.
    localizer : Localizer
    settings : OverlaySettings
    comment : str
        Kept in the file.
    tell : callable, optional
        Gets the time that has been reached and that of the end, seconds; the latter as the container claims it, None where it
        does not.
    note : callable, optional
        Gets every Instant, in order; only then are regions looked for.

    Raises
    ------
    MediaError
        There is no video or no sound that can be decoded, the whole sound is silent, or the time is up.
    OSError
        The target cannot be written.
    """
    deadline = Deadline(settings.time_limit_s, setting="--time-limit")
    # Each is read from beginning to end by itself, so that no stream has to wait in memory for another.
    with (
        MediaContainer(source, deadline=deadline) as video,
        MediaContainer(source, deadline=deadline) as sound,
        MediaContainer(source, deadline=deadline) as track,
    ):
        if sound.audio is None:
            raise MediaError(f"{source}: has no sound; there is nothing to localize")
        if video.video is None:
            raise MediaError(f"{source}: has no pictures; there is nothing to localize in")
        stream = video.video
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise MediaError(f"{source}: pictures of more than {MAX_PIXELS // 10**6} megapixels; scale the video down")
        with MediaContainer(source, deadline=deadline) as whole:
            # A constant offset is no sound, and with it taken off no sample lies further from 0 than all lie apart. To know costs
            # one block of a loud sound, and of a silent one far less than to code the video in vain.
            if stays_within(whole, 10 ** (localizer.silence_dbfs / 20)):
                raise MediaError(f"{source}: silent throughout; there is nothing to localize")
        overlay = _Overlay(video, sound, track, target, localizer, settings, comment, tell, note)
        return overlay.run()


class _Overlay:
    """One video on its way."""

    def __init__(
        self,
        video: MediaContainer,
        sound: MediaContainer,
        track: MediaContainer,
        target: Path,
        localizer: Localizer,
        settings: OverlaySettings,
        comment: str,
        tell: Tell | None,
        note: Callable[[Instant], None] | None,
    ) -> None:
        self.video, self.track, self.target, self.comment = video, track, target, comment
        self.localizer, self.settings = localizer, settings
        self.tell, self.note = tell, note
        audio = localizer.audio
        self.windows = SlidingWindows(sound, clip_seconds=audio.clip_seconds, sample_rate=audio.sample_rate)
        self.summary = VideoSummary()
        self.waiting: list[tuple[Any, Fraction, bool]] = []  # pictures, times, and whether a map is due
        self.frames: list[np.ndarray] = []  # of the maps that are due
        self.sounds: list[np.ndarray] = []
        self.recent: deque[tuple[Fraction, np.ndarray]] = deque()
        self.layer: Layer | None = None
        self.next_map: Fraction | None = None
        self.writer: VideoWriter | None = None
        self.canvas: Canvas | None = None
        self.coder = ThreadPoolExecutor(1)
        self.coding: deque[Future[None]] = deque()

    def run(self) -> VideoSummary:
        """Do all of it."""
        length = self.video.container.duration
        self.summary.claimed_s = None if length is None else length / 1e6
        time_base, rate = self.video.stream("video").time_base, self.video.stream("video").average_rate
        usual = 1 / Fraction(rate) if rate else Fraction(1, 25)
        previous: tuple[Any, Fraction] | None = None
        try:
            for picture in decoded_frames(self.video):
                self.video.deadline.check(self.video.path)
                time = frame_time(self.video, picture) * time_base
                if previous is not None and time <= previous[1]:
                    time = previous[1] + usual / 1000
                self._take(picture, time)
                previous = picture, time
            if previous is None:
                raise MediaError(f"{self.video.path}: no picture can be decoded; the file is damaged or truncated")
            self._flush(end=previous[1] + (previous[0].duration * time_base if previous[0].duration else usual))
            if self.summary.verdicts["silent"] == sum(self.summary.verdicts.values()):
                raise MediaError(f"{self.video.path}: silent wherever there are pictures; there is nothing to localize")
            while self.coding:
                self.coding.popleft().result()
        except BaseException as error:
            self.coder.shutdown(cancel_futures=True)
            if self.writer is not None:
                self.writer.__exit__(type(error), error, error.__traceback__)
            raise
        self.coder.shutdown()
        if self.writer is not None:
            self.writer.__exit__(None, None, None)
        return self.summary

    def _take(self, picture: Any, time: Fraction) -> None:
        rate = self.settings.maps_per_second
        # A thousandth of slack: times are rounded, and every third picture must stay every third.
        due = self.next_map is None or time >= self.next_map - Fraction(1, 1000)
        held = picture.width * picture.height * 3 // 2 * len(self.waiting)
        if (due and len(self.frames) >= self.settings.batch_size) or held > _BYTES_HELD:
            self._flush(end=time)
        if due:
            pixels = rgb_of(picture, self.video.path)
            self.frames.append(pixels)
            self.sounds.append(self.windows.window(time))
            step = 1 / Fraction(rate) if rate else Fraction(0)
            planned = (time if self.next_map is None else self.next_map) + step
            # After a long picture the plan starts anew, rather than catching up.
            self.next_map = planned if planned > time else time + step
        self.waiting.append((picture, time, due))

    def _flush(self, *, end: Fraction) -> None:
        """Compute the maps that are due and write all pictures that wait; `end` is when the last one ends."""
        found = iter(self.localizer.localize_batch(self.frames, self.sounds) if self.frames else ())
        times = [time for _, time, _ in self.waiting[1:]] + [end]
        for (picture, time, due), until in zip(self.waiting, times, strict=True):
            if self.writer is None or self.canvas is None:
                self.canvas = Canvas(picture, self.video.stream("video"))
                self.writer = self._open(self.canvas)
            if due:
                self.layer = self._layer(next(found), time, self.canvas)
            planes = self.canvas.planes(picture, self.video.path)
            if self.layer is not None:
                blend(planes, self.layer)
            self._write(planes, time, until - time)
            self.summary.frames += 1
            self.summary.seconds = float(until - self.video.zero)
        if self.tell is not None:
            self.tell(self.summary.seconds, self.summary.claimed_s)
        self.waiting.clear()
        self.frames.clear()
        self.sounds.clear()

    def _write(self, planes: np.ndarray, time: Fraction, duration: Fraction) -> None:
        """Hand a picture to the coder, which works while the next ones are decoded and painted."""
        if self.writer is not None:
            self.coding.append(self.coder.submit(self.writer.write, planes, time=time, duration=duration))
        if len(self.coding) > _PICTURES_AHEAD:
            self.coding.popleft().result()

    def _layer(self, found: Localization, time: Fraction, canvas: Canvas) -> Layer:
        self.summary.verdicts[found.verdict] += 1
        sounding = found.verdict == "sounding"
        response = self._smoothed(found.response, time) if sounding else found.response
        if self.note is not None:
            regions = self.localizer.regions(response) if sounding else []
            self.note(Instant(float(time - self.video.zero), found, regions))
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
            sound=self.track,
            zero=self.video.zero,
            colors=canvas.colors,
            aspect=canvas.aspect,
            comment=self.comment,
            crf=self.settings.crf,
            preset=self.settings.preset,
        )
        self.summary.sound = writer.sound
        return writer
