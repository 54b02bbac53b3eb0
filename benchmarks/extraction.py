"""Extraction speed on one core: frame, audio and log-mel of a clip, against decoding alone and against the common way.

The files are 12 s of 640×360 H.264 at 30 fps (keyframe interval 250, otherwise x264's defaults) with AAC stereo at 44.1 kHz.
"Decode only" decodes every frame up to the central one with PyAV in one thread and does nothing else. The "common way" is one
ffmpeg process for the frame, one for a WAV file, then librosa; it is skipped if `ffmpeg` is not on the PATH. The process and
its children are pinned to one core. Passes over the files are interleaved and the median of each is reported, so that load on
the machine affects all alike.

    python benchmarks/extraction.py [--files 20] [--passes 5] [--output benchmarks/results/extraction.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np
import torch
from PIL import Image

from pipeline.common.files import write_json
from pipeline.media.clip import DecodedClip, decode_clip, read_audio, read_frame
from pipeline.media.log_mel import log_mel

SECONDS, FPS, WIDTH, HEIGHT, RATE = 12, 30, 640, 360, 44_100
AUDIO = {"sample_rate": 22_050, "n_fft": 882, "hop_length": 441, "n_mels": 64}
CLIP_SECONDS, IMAGE_SIZE = 5.0, 256


def write_video(path: Path, seed: int) -> None:
    """Write one file: a slow pan over a textured scene, three moving shapes, sensor noise; a chord in noise."""
    generator = np.random.default_rng(seed)
    rough = Image.fromarray(generator.integers(0, 255, (40, 70, 3), dtype=np.uint8))
    scene = np.asarray(rough.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
    noise = generator.normal(0, 4, (8, HEIGHT, WIDTH, 1)).astype(np.int16)
    speeds = generator.uniform(0.5, 3, (3, 2))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"x264-params": "keyint=250"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="stereo")
        for i in range(SECONDS * FPS):
            x, y = (int(200 + 180 * np.sin(i / 90 + k)) for k in range(2))
            image = scene[y // 2 : y // 2 + HEIGHT, x : x + WIDTH] + noise[i % 8]
            for k, speed in enumerate(speeds):
                top, left = (int(abs((i * v * (k + 1)) % 500 - 250)) for v in speed)
                image[top : top + 80, left : left + 110, k] = 220
            frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        t = np.arange(SECONDS * RATE) / RATE
        tones = sum(np.sin(2 * np.pi * f * t) for f in generator.uniform(200, 3000, 4))
        samples = (0.1 * tones + 0.05 * generator.standard_normal((2, len(t)))).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        sound.sample_rate, sound.pts = RATE, 0
        for piece in av.AudioResampler("fltp", "stereo", RATE, frame_size=1024).resample(sound):
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))


def decode_only(path: Path) -> None:
    """Decode every frame up to the central one."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            if frame.pts * frame.time_base >= SECONDS / 2:
                return


def ours(path: Path) -> DecodedClip:
    """Decode the clip and compute its log-mel."""
    clip = decode_clip(
        video=path,
        frame=None,
        audio=None,
        centre_s=None,
        image_size=IMAGE_SIZE,
        sample_rate=AUDIO["sample_rate"],
        clip_seconds=CLIP_SECONDS,
        time_limit_s=60.0,
    )
    log_mel(torch.from_numpy(clip.waveform)[None], **AUDIO)
    return clip


def our_frame(path: Path) -> None:
    """Decode only the frame."""
    read_frame(path, centre_s=SECONDS / 2, image_size=IMAGE_SIZE)


def our_audio(path: Path) -> None:
    """Decode only the audio."""
    read_audio(path, centre_s=SECONDS / 2, clip_seconds=CLIP_SECONDS, sample_rate=AUDIO["sample_rate"])


def common_way(path: Path) -> None:
    """Run one ffmpeg process for the frame, one for the audio, then librosa. The middle is given, not probed."""
    still, wav = path.with_suffix(".jpg"), path.with_suffix(".wav")
    quiet: list[str | Path] = ["ffmpeg", "-v", "error", "-y", "-threads", "1"]
    subprocess.run([*quiet, "-ss", str(SECONDS / 2), "-i", path, "-frames:v", "1", "-q:v", "2", still], check=True)
    start = str(SECONDS / 2 - CLIP_SECONDS / 2)
    cut: list[str | Path] = [
        "-ss",
        start,
        "-i",
        path,
        "-t",
        str(CLIP_SECONDS),
        "-vn",
        "-ac",
        "1",
        "-ar",
        str(AUDIO["sample_rate"]),
    ]
    subprocess.run([*quiet, *cut, wav], check=True)
    np.asarray(Image.open(still).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))
    wave, rate = librosa.load(wav, sr=AUDIO["sample_rate"])
    wave = wave / np.abs(wave).max()
    energy = librosa.feature.melspectrogram(
        y=wave, sr=rate, n_fft=AUDIO["n_fft"], hop_length=AUDIO["hop_length"], n_mels=AUDIO["n_mels"]
    )
    np.log(np.maximum(energy, 1e-10))


def measure(ways: Mapping[str, Callable[[Path], object]], files: list[Path], passes: int) -> dict[str, float]:
    """Return each way's milliseconds per clip, the median over passes. The first pass, over two files, is a warm-up."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(passes + 1):
        some = files[:2] if number == 0 else files
        for name, way in ways.items():
            start = time.perf_counter()
            for path in some:
                way(path)
            if number:
                spent[name].append(1e3 * (time.perf_counter() - start) / len(some))
    return {name: statistics.median(values) for name, values in spent.items()}


def main() -> None:
    """Write the files, measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/extraction.json"))
    arguments = parser.parse_args()
    ways = {
        "decode only": decode_only,
        "soundspot": ours,
        "  frame only": our_frame,
        "  audio only": our_audio,
    }
    if shutil.which("ffmpeg"):
        ways["common way"] = common_way
    else:
        print("ffmpeg is not on the PATH, so the common way is not measured")
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i:02d}.mp4" for i in range(arguments.files)]
        for seed, path in enumerate(files):
            write_video(path, seed)
        torch.set_num_threads(1)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        medians = measure(ways, files, arguments.passes)
    report(medians, arguments)


def report(medians: dict[str, float], arguments: argparse.Namespace) -> None:
    """Print the table and write it as JSON."""
    print(f"{'one core':<20}{'ms per clip':>12}{'clips/s':>10}{'× decode only':>16}")
    for name, value in medians.items():
        print(f"{name:<20}{value:>12.1f}{1e3 / value:>10.1f}{value / medians['decode only']:>16.2f}")
    ratios = {"soundspot_over_decode_only": medians["soundspot"] / medians["decode only"]}
    print(
        f"soundspot takes {ratios['soundspot_over_decode_only']:.2f} × the time of decoding only (target: at most 1.2)"
    )
    if "common way" in medians:
        ratios["common_way_over_soundspot"] = medians["common way"] / medians["soundspot"]
        print(f"the common way takes {ratios['common_way_over_soundspot']:.2f} × as long (target: at least 2.5)")
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "av": av.__version__, "torch": torch.__version__}
    rows = {name.strip(): round(value, 3) for name, value in medians.items()}
    numbers = {name: round(value, 3) for name, value in ratios.items()}
    content = {"files": arguments.files, "passes": arguments.passes, **machine, "ms_per_clip": rows, "ratios": numbers}
    write_json(arguments.output, content)


if __name__ == "__main__":
    main()
