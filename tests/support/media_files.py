"""Small media files in which every frame and sample is known.

A frame displays its own number as twelve black or white blocks, four to a row, lowest bit first, which survive lossy
encoding and resizing. The audio is silent except for impulses at known times.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, BLOCK = 128, 96, 32
TICK = Fraction(1, 12_000)


def numbered_frame(number: int) -> np.ndarray:
    """Return the frame that displays a number below 4096: uint8 (HEIGHT, WIDTH, 3)."""
    bits = np.array([(number >> i) & 1 for i in range(12)], dtype=np.uint8).reshape(3, 4)
    gray = np.kron(bits * 255, np.ones((BLOCK, BLOCK), dtype=np.uint8))
    return np.repeat(gray[:, :, None], 3, axis=2)


def number_of(frame: np.ndarray) -> int:
    """Read the number off a frame of any size."""
    rows, columns = frame.shape[0] / 3, frame.shape[1] / 4
    bits = [frame[int((i // 4 + 0.5) * rows), int((i % 4 + 0.5) * columns), 0] > 127 for i in range(12)]
    return sum(int(bit) << i for i, bit in enumerate(bits))


def steady(seconds: float, fps: int) -> list[Fraction]:
    """Return frame times at a constant rate."""
    return [Fraction(i, fps) for i in range(round(seconds * fps))]


def impulses(seconds: float, rate: int, times: Sequence[float], *, channels: int = 1) -> np.ndarray:
    """Return silence with one-sample impulses of 0.9: float32 (channel, sample)."""
    sound = np.zeros((channels, round(seconds * rate)), dtype=np.float32)
    for time in times:
        sound[:, round(time * rate)] = 0.9
    return sound


def write_media(
    path: Path,
    *,
    times: Sequence[Fraction] = (),
    frames: Sequence[np.ndarray] | None = None,
    video_codec: str = "libx264",
    video_options: dict[str, str] | None = None,
    gop: int = 12,
    bframes: int = 0,
    rotation: float | None = None,
    mirrored: bool = False,
    sound: np.ndarray | None = None,
    rate: int = 16_000,
    audio_codec: str = "aac",
    audio_bit_rate: int | None = None,
    sound_start: float = 0.0,
    sound_gap: tuple[float, float] = (0.0, 0.0),
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """Write a media file with PyAV; the suffix selects the container unless `container_format` does."""
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        video = audio = None
        if times:
            video = container.add_stream(video_codec, rate=25)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            if frames is not None:
                video.height, video.width = frames[0].shape[:2]
            video.codec_context.gop_size, video.codec_context.max_b_frames = gop, bframes
            video.codec_context.time_base = Fraction(1, 25) if video_codec.startswith("mpeg") else TICK
            defaults = {"crf": "12", "x264-params": f"scenecut=0:keyint={gop}"} if video_codec == "libx264" else {}
            video.codec_context.options = {**defaults, **(video_options or {})}
            if rotation is not None:
                video.set_display_rotation(rotation, hflip=mirrored)
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate, layout="stereo" if len(sound) == 2 else "mono")
            if audio_bit_rate is not None:
                audio.bit_rate = audio_bit_rate
        # Audio first: some muxers buffer little.
        if audio is not None:
            _encode_sound(container, audio, sound, rate, sound_start, sound_gap)
        if video is not None:
            _encode_frames(container, video, times, frames)
    return path


def spoil_sound(path: Path) -> Path:
    """Replace each audio packet with zeros, which makes FLAC audio undecodable."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    content = path.read_bytes()
    for packet in packets:
        assert packet in content
        content = content.replace(packet, bytes(len(packet)))
    path.write_bytes(content)
    return path


def _encode_frames(container, stream, times, frames):
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(numbered_frame(number) if frames is None else frames[number], format="rgb24")
        frame.time_base = stream.codec_context.time_base
        frame.pts = round(time / frame.time_base)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _encode_sound(container, stream, sound, rate, start, gap):
    if stream.codec_context.name == "pcm_s16le":
        packed = np.round(sound * 32767).astype(np.int16).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=stream.layout.name)
    else:
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=stream.layout.name)
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    frame.pts = round(start * rate)
    resampler = av.AudioResampler(stream.codec_context.format.name, stream.layout.name, rate, frame_size=1024)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        # `gap` is (start, length): everything from the start on is delayed by the length.
        if piece.pts * piece.time_base >= gap[0]:
            piece.pts += round(gap[1] / piece.time_base)
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def claim_duration(path: Path, seconds: float) -> Path:
    """Overwrite the duration in a Matroska file's header (element 0x4489, a float64 in milliseconds)."""
    data = bytearray(path.read_bytes())
    struct.pack_into(">d", data, data.index(b"\x44\x89\x88") + 3, seconds * 1000)
    path.write_bytes(bytes(data))
    return path


def mark_keyframes(path: Path) -> Path:
    """Hide an MP4's table of keyframes; without it every frame counts as one."""
    data = path.read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))
    return path


def truncate(path: Path, fraction: float) -> Path:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path
