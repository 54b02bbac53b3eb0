"""Media files with odd time stamps, joined recordings, several programs, or several audio tracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.support.media_files import numbered_frame, steady, write_media

_TS_PACKET = 188


def tone(frequency: float, seconds: float, rate: int, *, channels: int = 1) -> np.ndarray:
    """Return a sine of amplitude 0.3: float32 (channel, sample)."""
    return np.tile(0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate), (channels, 1)).astype(
        "f4"
    )


def frequency_of(wave: np.ndarray, rate: int) -> float:
    """Return the strongest frequency, Hz."""
    return float(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))).argmax() * rate / len(wave))


def pcm_with_stamps(path: Path, sound: np.ndarray, rate: int, late_s: Callable[[int], float]) -> Path:
    """Write PCM blocks of 1,024 samples to Matroska; block i has a time stamp that is late by `late_s(i)` seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono" if len(sound) == 1 else "stereo")
        samples = np.round(sound * 32767).astype(np.int16).T
        for i, first in enumerate(range(0, len(samples), 1024)):
            block = samples[first : first + 1024]
            frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout=stream.layout.name)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = first
            for packet in stream.encode(frame):
                packet.pts = packet.dts = packet.pts + round(late_s(i) / packet.time_base)
                container.mux(packet)
    return path


def recording(path: Path, *, first: int, start: Fraction, frequency: float, seconds: int = 3, **options) -> Path:
    """Write numbered frames from `first` on with a tone; both start at `start` on the file's clock."""
    rate, channels = options.pop("rate", 48_000), options.pop("channels", 1)
    return write_media(
        path,
        times=[time + start for time in steady(seconds, 25)],
        frames=[numbered_frame(first + i) for i in range(25 * seconds)],
        sound=tone(frequency, seconds, rate, channels=channels),
        rate=rate,
        sound_start=float(start),
        audio_codec="mp2",
        **options,
    )


def joined(path: Path, parts: Sequence[Path]) -> Path:
    """Join files byte by byte."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def two_programs(path: Path, folder: Path, programs: Sequence[dict]) -> Path:
    """Write a transport stream with two programs; each is described by arguments of `recording`."""
    streams = []
    for number, options in enumerate(programs, start=1):
        pids = {
            "mpegts_service_id": number,
            "mpegts_pmt_start_pid": 0x1000 + number,
            "mpegts_start_pid": 0x100 * number,
        }
        file = recording(
            folder / f"program{number}.ts", container_options={k: str(v) for k, v in pids.items()}, **options
        )
        data = file.read_bytes()
        packets = [data[i : i + _TS_PACKET] for i in range(0, len(data), _TS_PACKET)]
        # The tables of programs and services (PIDs 0 and 17) name one program each.
        streams.append([packet for packet in packets if int.from_bytes(packet[1:3], "big") & 0x1FFF not in (0, 17)])
    places = [(i / len(packets), packet) for packets in streams for i, packet in enumerate(packets)]
    merged = [packet for _, packet in sorted(places, key=lambda place: place[0])]
    path.write_bytes(_program_table() + b"".join(merged))
    return path


def _program_table() -> bytes:
    """Return a packet that lists program 1 at PID 0x1001 and program 2 at 0x1002."""
    entries = b"".join(number.to_bytes(2, "big") + (0xE000 | 0x1000 + number).to_bytes(2, "big") for number in (1, 2))
    section = b"\x00" + (0xB000 | (9 + len(entries))).to_bytes(2, "big") + b"\x00\x01\xc1\x00\x00" + entries
    packet = b"\x47\x40\x00\x10\x00" + section + _checksum(section)
    return packet.ljust(_TS_PACKET, b"\xff")


def _checksum(section: bytes) -> bytes:
    """Return the CRC-32 of MPEG-2 sections."""
    check = 0xFFFFFFFF
    for byte in section:
        check ^= byte << 24
        for _ in range(8):
            check = (check << 1) ^ (0x04C11DB7 if check & 0x80000000 else 0)
    return (check & 0xFFFFFFFF).to_bytes(4, "big")


def with_stream_types(path: Path, changed: dict[int, int]) -> Path:
    """Change the stream types in the program maps (PID 0x1000) of a transport stream."""
    data = bytearray(path.read_bytes())
    for start in range(0, len(data), _TS_PACKET):
        if data[start + 1 : start + 3] != b"\x50\x00":
            continue
        section = start + 5
        end = section + 3 + (int.from_bytes(data[section + 1 : section + 3], "big") & 0xFFF) - 4
        entry = section + 12 + (int.from_bytes(data[section + 10 : section + 12], "big") & 0xFFF)
        while entry < end:
            data[entry] = changed.get(data[entry], data[entry])
            entry += 5 + (int.from_bytes(data[entry + 3 : entry + 5], "big") & 0xFFF)
        data[end : end + 4] = _checksum(bytes(data[section:end]))
    path.write_bytes(data)
    return path


def two_tracks(path: Path, first: np.ndarray, second: np.ndarray, rate: int) -> Path:
    """Write two FLAC tracks (channel, sample) of the same length and one second of numbered frames."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        tracks = [container.add_stream("flac", rate=rate, layout="mono") for _ in range(2)]
        for number in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")))
        container.mux(video.encode(None))
        for stream, sound in zip(tracks, (first, second), strict=True):
            frame = av.AudioFrame.from_ndarray(np.round(sound * 32767).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
            for piece in av.AudioResampler("s16", "mono", rate, frame_size=4096).resample(frame):
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    return path
