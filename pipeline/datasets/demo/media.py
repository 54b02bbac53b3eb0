"""Encodes demo scenes as media files: MP4 (H.264 and AAC), or an image file and an audio file.

Conventions
-----------
Every function returns the bytes of a file. With the same versions of PyAV (and its FFmpeg), NumPy and Pillow, the same
input gives the same bytes: encoders run on one thread, and no creation times are written.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from pipeline.datasets.demo.backgrounds import SIDE
from pipeline.datasets.demo.drawing import draw_frames
from pipeline.datasets.demo.scene import Scene
from pipeline.datasets.demo.sounds import RATE, synthesize

_AAC_FRAME = 1024  # samples
_H264 = {"preset": "ultrafast", "crf": "28"}
_AAC = {"aac_coder": "fast"}  # takes a third of the default coder's time, with hardly any audible difference
_AUDIO_CODECS = {"wav": "pcm_s16le", "flac": "flac"}


def encode_video(scene: Scene) -> bytes:
    """Return the whole shot as an MP4 file."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video: Any = container.add_stream("libx264", rate=scene.fps, options=_H264)
        audio: Any = container.add_stream("aac", rate=RATE, layout="mono", options=_AAC)
        audio.bit_rate = 64_000
        video.pix_fmt, video.width, video.height = "yuv420p", SIDE, SIDE
        video.codec_context.thread_count = audio.codec_context.thread_count = 1
        frames = draw_frames(scene, range(scene.n_frames))
        container.mux(_video_packets(video, frames))
        container.mux(_audio_packets(audio, _waveform(scene)[None], "fltp"))
    return target.getvalue()


def encode_image(scene: Scene, suffix: str) -> bytes:
    """Return the central frame as an image file; `suffix` is png or jpg."""
    frame = next(draw_frames(scene, range(scene.central_frame, scene.central_frame + 1)))
    target = io.BytesIO()
    if suffix == "png":
        frame.save(target, "PNG")
    else:
        frame.save(target, "JPEG", quality=92)
    return target.getvalue()


def encode_audio(scene: Scene, suffix: str) -> bytes:
    """Return the shot's audio as a 16-bit file; `suffix` is wav or flac."""
    target = io.BytesIO()
    samples = np.round(_waveform(scene) * 32767).astype(np.int16)
    with av.open(target, "w", format=suffix, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(_AUDIO_CODECS[suffix], rate=RATE, layout="mono")
        stream.codec_context.thread_count = 1
        container.mux(_audio_packets(stream, samples[None], "s16"))
    return target.getvalue()


def _waveform(scene: Scene) -> np.ndarray:
    # Whole AAC frames, no longer than the video stream: the container's duration is then that of the video, and a clip
    # is centered at half the duration unless its list gives centre_s.
    n_frames = int(scene.duration_s * RATE) // _AAC_FRAME
    return synthesize(scene.sound, n_frames * _AAC_FRAME)


def _video_packets(stream: Any, frames: Iterable[Image.Image]) -> list[av.Packet]:
    packets = []
    convert = VideoReformatter()  # shared by all frames, since building its tables costs more than a conversion
    for index, image in enumerate(frames):
        frame = convert.reformat(av.VideoFrame.from_image(image), format="yuv420p")
        frame.pts = index
        frame.time_base = Fraction(1, int(stream.codec_context.framerate))
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _audio_packets(stream: Any, samples: np.ndarray, sample_format: str) -> list[av.Packet]:
    packets = []
    for start in range(0, samples.shape[1], _AAC_FRAME):
        frame = av.AudioFrame.from_ndarray(samples[:, start : start + _AAC_FRAME], sample_format, "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        packets += stream.encode(frame)
    return packets + stream.encode(None)
