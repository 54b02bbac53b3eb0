"""Speed of localizing a video, against decoding and encoding it and against the model alone, all in the same run.

The input is a 10-s 1280×720 video with audio: moving noise, which is hard to encode. *Decode and encode* reads the video and
writes it again with the same encoder and settings, with copied audio and nothing in between. *Model* runs the same number of
frames and audio windows through `Localizer.localize_batch`, in the same batches: squash, log-mel, net. *Whole* is the function
behind `soundspot localize`. The ratio is (whole - model) / (decode and encode). Its target is at most 1.5; above it, the exit
code is 1. Repeats are interleaved and the median of each is reported. The net is the demo's from params.yaml with random weights.

    python benchmarks/localization.py [--seconds 10] [--repeats 3] [--output benchmarks/results/localization.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from pipeline.apps.localize.localizer import Localizer
from pipeline.apps.localize.video.overlay import overlay_video
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.apps.localize.video.writer import VideoWriter
from pipeline.common.config import load_card, load_params
from pipeline.common.files import write_json
from pipeline.media.container import Deadline, MediaContainer
from pipeline.media.video import decoded_frames, frame_time
from pipeline.methods.build import build_method
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import build_model

WIDTH, HEIGHT, FPS, RATE = 1280, 720, 30, 44_100
TARGET = 1.5


def make_video(path: Path, seconds: float) -> None:
    """Write drifting soft noise, with tones as audio."""
    rng = np.random.default_rng(0)
    soft = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    t = np.arange(round(seconds * RATE)) / RATE
    sound = np.stack([0.3 * np.sin(500 * t * (1 + t / 9)), 0.3 * np.sin(900 * t)]).astype(np.float32)
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "20"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="stereo")
        block = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
        block.sample_rate, block.time_base, block.pts = RATE, Fraction(1, RATE), 0
        resampler = av.AudioResampler("fltp", "stereo", RATE, frame_size=1024)
        for piece in [*resampler.resample(block), *resampler.resample(None)]:
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
        for i in range(round(seconds * FPS)):
            pixels = np.ascontiguousarray(soft[:, 3 * i % WIDTH : 3 * i % WIDTH + WIDTH])
            pixels = pixels + rng.integers(0, 8, (HEIGHT, WIDTH, 1), dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))


def decode_and_encode(source: Path, target: Path, settings: OverlaySettings) -> None:
    """Read a video and write it again: what the overlay does, without the overlay."""
    deadline = Deadline(600)
    with MediaContainer(source, deadline=deadline) as video, MediaContainer(source, deadline=deadline) as track:
        time_base = video.stream("video").time_base
        writing = VideoWriter(
            target,
            width=WIDTH,
            height=HEIGHT,
            time_base=time_base,
            audio=track,
            zero=video.zero,
            crf=settings.crf,
            preset=settings.preset,
        )
        with writing as writer:
            for frame in decoded_frames(video):
                shown = frame_time(video, frame) * time_base
                writer.write(frame.to_ndarray(), time=shown, duration=Fraction(1, FPS))


def run_model(localizer: Localizer, n_maps: int, batch_size: int) -> None:
    """Run the model as often as the overlay does."""
    frame = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    window = np.random.default_rng(2).normal(size=localizer.audio.n_samples).astype(np.float32)
    for start in range(0, n_maps, batch_size):
        n = min(batch_size, n_maps - start)
        localizer.localize_batch([frame] * n, [window] * n)


def measure(seconds: float, repeats: int, params: Path, device: str) -> dict[str, float]:
    """Return the median seconds of each part, the ratio, and its target."""
    settings = OverlaySettings()
    torch.manual_seed(0)
    card = load_card(params.absolute().parent / "data_manifests" / "demo")
    training = load_params(params).training["demo"]
    model = TrainedModel(build_model(training.encoder), build_method("initial", training.iterate))
    localizer = Localizer(model, audio=card.audio, image_size=card.image_size, delta_v=0.85, device=device)
    n_maps = round(seconds * settings.maps_per_second)
    spent: dict[str, list[float]] = {"decode_and_encode": [], "model": [], "whole": []}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.mp4", Path(folder) / "target.mp4"
        make_video(source, seconds)
        ways = {
            "decode_and_encode": lambda: decode_and_encode(source, target, settings),
            "model": lambda: run_model(localizer, n_maps, settings.batch_size),
            "whole": lambda: overlay_video(source, target, localizer, settings),
        }
        for _ in range(repeats + 1):  # the first is a warm-up
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                spent[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times[1:]) for name, times in spent.items()}
    return {
        **{f"{name}_seconds": round(value, 3) for name, value in medians.items()},
        "ratio": round((medians["whole"] - medians["model"]) / medians["decode_and_encode"], 3),
        "target_ratio": TARGET,
    }


def main(words: Sequence[str] | None = None) -> int:
    """Run, print the table, write JSON; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/localization.json"))
    arguments = parser.parse_args(words)

    result = measure(arguments.seconds, arguments.repeats, arguments.params, arguments.device)

    for name, value in result.items():
        print(f"{name:<36}{value:>12.4g}")
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine()}
    arguments_used = {"seconds": arguments.seconds, "repeats": arguments.repeats, "device": arguments.device}
    write_json(arguments.output, {**arguments_used, **machine, "torch": torch.__version__, **result})
    if result["ratio"] <= TARGET:
        return 0
    print(f"the ratio {result['ratio']:.3g} is above its target, {TARGET}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
