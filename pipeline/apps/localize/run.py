"""Localize one file and write its outputs.

Outputs are written atomically, the MP4 or PNG last, so an interrupted job is repeated. Every output except the PNG
stores `made_by`, a hash of the model, the settings and the content of the inputs.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.apps.localize.jobs import Job
from pipeline.apps.localize.localizer import Localization, Localizer
from pipeline.apps.localize.regions import Region
from pipeline.apps.localize.sliding_windows import SlidingWindows
from pipeline.apps.localize.video.overlay import NOTICES, OnProgress, TimedLocalization, VideoSummary, overlay_video
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.common.errors import LocalizationError, MediaError
from pipeline.common.files import file_digest, fingerprint, replacing, write_bytes, write_json
from pipeline.common.reading import read_json
from pipeline.figures.heatmap import blend, rgb_layer, upsampled
from pipeline.figures.labels import add_rgb_bar, rgb_notice
from pipeline.media.audio import use_sounding_track
from pipeline.media.container import Deadline, MediaContainer
from pipeline.media.image import read_still
from pipeline.media.pyav import open_media
from pipeline.media.readable import require_file

FORMAT_VERSION = 1


def run_job(
    job: Job,
    folder: Path,
    localizer: Localizer,
    settings: OverlaySettings,
    *,
    as_json: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> str | None:
    """Run one job unless its outputs exist.

    Parameters
    ----------
    job : Job
    folder : Path
        OUT.
    localizer : Localizer
    settings : OverlaySettings
    as_json : bool
        Also write the boxes of the sounding regions.
    overwrite : bool
        Run the job even if its outputs exist.
    on_progress : callable, optional
        Receives the time reached and the duration; see `overlay_video`.

    Returns
    -------
    str or None
        A short summary of the result; None if all outputs existed.

    Raises
    ------
    MediaError
        The media is unusable; the message has the reason.
    LocalizationError
        An output path is occupied by a file from another model, other settings or another program, or by another job.
    OSError
        An output cannot be written.
    """
    if job.problem:
        raise LocalizationError(job.problem)
    require_file(job.source)
    made_by = _made_by(job, localizer, settings)
    outputs = job.outputs(folder, as_json=as_json)
    if not overwrite:
        _refuse_to_replace(outputs, made_by)
        if all(path.exists() for path in outputs):
            return None
    run = _Run(job, folder, localizer, settings, made_by, as_json, on_progress)
    return _run_image(run) if job.is_image else _run_video(run)


@dataclass(frozen=True)
class _Run:
    """A job and its context; see `run_job`."""

    job: Job
    folder: Path
    localizer: Localizer
    settings: OverlaySettings
    made_by: str
    as_json: bool
    on_progress: OnProgress | None

    def output(self, suffix: str) -> Path:
        """Return the path of one of the outputs."""
        return self.job.output(self.folder, suffix)

    def update_json(self, found: dict[str, Any]) -> None:
        """Write the JSON. If none is requested, delete one from an earlier run, which would not match the new outputs."""
        path, localizer = self.output(".json"), self.localizer
        if not self.as_json:
            if path.is_file() and _read_made_by(path) not in ("", self.made_by):
                path.unlink()
            return
        facts = {
            "format_version": FORMAT_VERSION,
            "made_by": self.made_by,
            "input": str(self.job.name),
            "model": localizer.name,
            "delta_v": localizer.delta_v,
            "silence_dbfs": localizer.silence_dbfs,
            "miss_rate": localizer.miss_rate if localizer.calibration else None,
        }
        write_json(path, {**facts, **found})


def _run_video(run: _Run) -> str:
    maps: list[dict[str, Any]] = []

    def on_map(timed: TimedLocalization) -> None:
        maps.append({"time_s": round(timed.time_s, 6), **_as_json(timed.found, timed.regions)})

    with replacing(run.output(".mp4")) as temporary:
        summary = overlay_video(
            run.job.source,
            temporary,
            run.localizer,
            run.settings,
            comment=f"soundspot localize {run.made_by}",
            on_progress=run.on_progress,
            on_map=on_map if run.as_json else None,
        )
        times = {"seconds": round(summary.seconds, 6), "frames": summary.frames, "smooth_s": run.settings.smooth_s}
        # Still inside the block, so that the MP4, which marks the job as done, is moved into place last.
        run.update_json({**times, "maps": maps})
    return _describe(summary)


def _run_image(run: _Run) -> str:
    job, localizer = run.job, run.localizer
    if job.audio is None:
        raise MediaError(
            f"{job.source}: an image without audio; pass --audio FILE, or put {job.source.stem}.wav next to it"
        )
    image = read_still(job.source)
    if image is None:
        raise MediaError(f"{job.source}: is no longer an image file")
    found = localizer.localize_batch([image], [_middle_window(job.audio, localizer, run.settings.time_limit_s)])[0]
    # Unlike a video, an image has only one window, so silence is an error instead of a notice.
    if found.verdict == "silent":
        raise MediaError(
            f"{job.audio}: silent in its middle {localizer.audio.clip_seconds:g} s ({found.level_dbfs:.0f} dBFS); there is nothing to localize"
        )
    height, width = image.shape[:2]
    regions = localizer.regions(found.response) if found.verdict == "sounding" else []
    arrays: dict[str, Any] = {
        "response": upsampled(found.response, height=height, width=width),
        "cells": found.response,
        "boxes": np.array([region[:5] for region in regions], dtype=np.float64).reshape(-1, 5),
        "verdict": np.array(found.verdict),
        "confidence": np.array(np.nan if found.confidence is None else found.confidence),
        "made_by": np.array(run.made_by),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(run.output(".npz"), buffer.getvalue())
    run.update_json(_as_json(found, regions))
    drawn = np.array(image, order="C")
    if found.verdict == "sounding":
        layer = rgb_layer(localizer.heat(found.response), height=height, width=width)
        add_rgb_bar(layer, height=height, width=width)
        blend(drawn, layer)
    else:
        blend(drawn, rgb_notice(NOTICES[found.verdict], height=height, width=width))
    with replacing(run.output(".png")) as temporary:
        Image.fromarray(drawn).save(temporary, format="png")
    return f"{width}×{height} pixels, {found.verdict}{_share(found)}"


def _middle_window(path: Path, localizer: Localizer, limit_s: float) -> np.ndarray:
    with MediaContainer(path, deadline=Deadline(limit_s, setting="--time-limit")) as media:
        media.stream("audio")
        use_sounding_track(media)
        timestamp = media.timestamp(None)
        audio = localizer.audio
        # Not `window_at`, which normalizes the level that the silence threshold refers to.
        windows = SlidingWindows(media, clip_seconds=audio.clip_seconds, sample_rate=audio.sample_rate)
        window = windows.window(timestamp)
        if not windows.has_audio:
            raise MediaError(f"{path}: its audio cannot be decoded; the file is damaged, re-encode it")
        return window


def _refuse_to_replace(outputs: Sequence[Path], made_by: str) -> None:
    """Raise LocalizationError if an output was not made by this job; leftovers of an interrupted job may be replaced."""
    main = outputs[-1]
    made = {path: _read_made_by(path) for path in outputs if path.suffix != ".png" and path.exists()}
    if main.exists():
        # A PNG does not store `made_by`; the NPZ that is written before it does.
        made.setdefault(main if main.suffix != ".png" else main.with_suffix(".npz"), "")
        others = [path for path, maker in made.items() if maker != made_by]
    else:
        others = [path for path, maker in made.items() if not maker]
    if others:
        raise LocalizationError(
            f"{main if main.exists() else others[0]}: exists and was made from another file, by another model or with other "
            "settings; pass --overwrite"
        )


def _made_by(job: Job, localizer: Localizer, settings: OverlaySettings) -> str:
    calibration = localizer.calibration
    # The batch size and the time limit do not change the output.
    how = {name: value for name, value in asdict(settings).items() if name not in ("batch_size", "time_limit_s")}
    return fingerprint(
        {
            "format_version": FORMAT_VERSION,
            "model": localizer.name,
            "delta_v": localizer.delta_v,
            "calibration": None if calibration is None else [*calibration.own, localizer.miss_rate],
            "silence_dbfs": localizer.silence_dbfs,
            "settings": {} if job.is_image else how,
            "inputs": [_digest(path) for path in (job.source, job.audio) if path is not None],
        }
    )


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be read ({error.strerror}); check that the file exists and that you have permission to read it"
        ) from None


def _read_made_by(path: Path) -> str:
    """Read `made_by` from an output; empty if it is not stored."""
    try:
        if path.suffix == ".json":
            return str(read_json(path, MediaError)["made_by"])
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return str(arrays["made_by"])
        with open_media(path) as container:
            return container.metadata.get("comment", "").removeprefix("soundspot localize ")
    # Another program's file can make zipfile, NumPy and FFmpeg raise nearly anything; it is then not an output of ours.
    except Exception:
        return ""


def _as_json(found: Localization, regions: Sequence[Region]) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "confidence": None if found.confidence is None else round(found.confidence, 4),
        # The highest raw response of the frame; a silent window was not shown to the model.
        "response": None if found.verdict == "silent" else round(float(found.response.max()), 6),
        "level_dbfs": round(found.level_dbfs, 2) if math.isfinite(found.level_dbfs) else None,
        "boxes": [{name: round(value, 6) for name, value in region._asdict().items()} for region in regions],
    }


def _describe(summary: VideoSummary) -> str:
    total = sum(summary.verdicts.values())
    text = f"{summary.seconds:.2f} s, {summary.frames} frames, {total} maps, audio {summary.audio}"
    for verdict, words in NOTICES.items():
        if summary.verdicts[verdict]:
            text += f"; {words} in {summary.verdicts[verdict] / total:.0%} of the maps"
    if summary.claimed_s is not None and summary.claimed_s - summary.seconds > 1:
        text += f"; the video ends there, although the file's header claims {summary.claimed_s:.2f} s"
    return text


def _share(found: Localization) -> str:
    return "" if found.confidence is None else f" (confidence {found.confidence:.2f})"
