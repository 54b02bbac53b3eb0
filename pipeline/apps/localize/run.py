"""One job of localizing: from the media to the outputs on disk.

Outputs are written whole or not at all, the one that is looked at last, so that a job that was stopped at any moment is begun
anew. Every output but PNG knows what made it: model, settings, and the content of the inputs.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from pipeline.apps.localize.jobs import Job
from pipeline.apps.localize.localizer import Localization, Localizer
from pipeline.apps.localize.regions import Region
from pipeline.apps.localize.sliding_windows import SlidingWindows
from pipeline.apps.localize.video.overlay import NOTICES, Instant, Tell, VideoSummary, overlay_video
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.common.errors import LocalizationError, MediaError
from pipeline.common.files import file_digest, fingerprint, replacing, write_bytes, write_json
from pipeline.figures.heatmap import blend, enlarged, overlay, rgb_notice
from pipeline.media.clip import read_still
from pipeline.media.container import Deadline, MediaContainer, require_file

FORMAT_VERSION = 1


def run_job(
    job: Job,
    folder: Path,
    localizer: Localizer,
    settings: OverlaySettings,
    *,
    as_json: bool = False,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> str | None:
    """Do one job, unless its outputs are there.

    Parameters
    ----------
    job : Job
    folder : Path
        OUT.
    localizer : Localizer
    settings : OverlaySettings
    as_json : bool
        Write the boxes of the sounding regions as well.
    overwrite : bool
        Do it in any case.
    tell : callable, optional
        Gets the time that has been reached and that of the end, as for `overlay_video`.

    Returns
    -------
    str or None
        What came out, in a few words; None if all was there already.

    Raises
    ------
    MediaError
        The media cannot be used, with the reason.
    LocalizationError
        A file is in an output's place that another model or other settings made, or another program; or another job of the
        same run gets that place.
    OSError
        An output cannot be written.
    """
    if job.conflict:
        raise LocalizationError(job.conflict)
    require_file(job.source)
    made_by = _made_by(job, localizer, settings)
    outputs = job.outputs(folder, as_json=as_json)
    if not overwrite:
        _refuse_to_replace(outputs, made_by)
        if all(path.exists() for path in outputs):
            return None
    run = _Run(job, folder, localizer, settings, made_by, as_json, tell)
    return _run_picture(run) if job.is_picture else _run_video(run)


@dataclass(frozen=True)
class _Run:
    """One job and all that it is done with; `run_job` says what each is."""

    job: Job
    folder: Path
    localizer: Localizer
    settings: OverlaySettings
    made_by: str
    as_json: bool
    tell: Tell | None

    def output(self, suffix: str) -> Path:
        """Return the path of one of the outputs."""
        return self.job.output(self.folder, suffix)

    def settle_json(self, found: dict[str, Any]) -> None:
        """Write the JSON, or remove one that another run of ours left: beside new outputs it would say what was true of old ones."""
        path, localizer = self.output(".json"), self.localizer
        if not self.as_json:
            if path.is_file() and _made_by_of(path) not in ("", self.made_by):
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
    instants: list[dict[str, Any]] = []

    def note(instant: Instant) -> None:
        instants.append({"time_s": round(instant.time_s, 6), **_as_json(instant.found, instant.regions)})

    with replacing(run.output(".mp4")) as temporary:
        summary = overlay_video(
            run.job.source,
            temporary,
            run.localizer,
            run.settings,
            comment=f"soundspot localize {run.made_by}",
            tell=run.tell,
            note=note if run.as_json else None,
        )
        times = {"seconds": round(summary.seconds, 6), "frames": summary.frames, "smooth_s": run.settings.smooth_s}
        run.settle_json({**times, "maps": instants})
    return _describe(summary)


def _run_picture(run: _Run) -> str:
    job, localizer = run.job, run.localizer
    if job.sound is None:
        raise MediaError(
            f"{job.source}: a picture without a sound; give --audio FILE, or put {job.source.stem}.wav beside it"
        )
    picture = read_still(job.source)
    if picture is None:
        raise MediaError(f"{job.source}: is no picture file any more")
    found = localizer.localize_batch([picture], [_middle_window(job.sound, localizer, run.settings.time_limit_s)])[0]
    if found.verdict == "silent":
        raise MediaError(
            f"{job.sound}: silent where it is listened to ({found.level_dbfs:.0f} dBFS); nothing to localize"
        )
    height, width = picture.shape[:2]
    regions = localizer.regions(found.response) if found.verdict == "sounding" else []
    arrays: dict[str, Any] = {
        "response": enlarged(found.response, height=height, width=width),
        "cells": found.response,
        "boxes": np.array([region[:5] for region in regions], dtype=np.float64).reshape(-1, 5),
        "verdict": np.array(found.verdict),
        "confidence": np.array(np.nan if found.confidence is None else found.confidence),
        "made_by": np.array(run.made_by),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(run.output(".npz"), buffer.getvalue())
    run.settle_json(_as_json(found, regions))
    if found.verdict == "sounding":
        drawn = overlay(picture, localizer.heat(found.response))
    else:
        drawn = np.array(picture, order="C")
        blend(drawn, rgb_notice(NOTICES[found.verdict], height=height, width=width))
    with replacing(run.output(".png")) as temporary:
        Image.fromarray(drawn).save(temporary, format="png")
    return f"{width}×{height} pixels, {found.verdict}{_share(found)}"


def _middle_window(path: Path, localizer: Localizer, limit_s: float) -> np.ndarray:
    with MediaContainer(path, deadline=Deadline(limit_s, setting="--time-limit")) as source:
        source.stream("audio")
        moment = source.timestamp(None)
        audio = localizer.audio
        windows = SlidingWindows(source, clip_seconds=audio.clip_seconds, sample_rate=audio.sample_rate)
        window = windows.window(moment)
        if not windows.has_sound:
            raise MediaError(f"{path}: its sound cannot be decoded; the file is damaged, re-encode it")
        return window


def _refuse_to_replace(outputs: Sequence[Path], made_by: str) -> None:
    """Raise LocalizationError if an output of something else is there; what a stopped job has left may be replaced."""
    main = outputs[-1]
    made = {path: _made_by_of(path) for path in outputs if path.suffix != ".png" and path.exists()}
    if main.exists():
        # A PNG does not know what made it; the NPZ that is written before it does.
        made.setdefault(main if main.suffix != ".png" else main.with_suffix(".npz"), "")
        others = [path for path, maker in made.items() if maker != made_by]
    else:
        others = [path for path, maker in made.items() if not maker]
    if others:
        raise LocalizationError(
            f"{main if main.exists() else others[0]}: is there, made from another file, by another model or with other "
            "settings; give --overwrite"
        )


def _made_by(job: Job, localizer: Localizer, settings: OverlaySettings) -> str:
    calibration = localizer.calibration
    how = {name: value for name, value in asdict(settings).items() if name not in ("batch_size", "time_limit_s")}
    return fingerprint(
        {
            "format_version": FORMAT_VERSION,
            "model": localizer.name,
            "delta_v": localizer.delta_v,
            "calibration": None if calibration is None else [*calibration.own, localizer.miss_rate],
            "silence_dbfs": localizer.silence_dbfs,
            "settings": {} if job.is_picture else how,
            "inputs": [_digest(path) for path in (job.source, job.sound) if path is not None],
        }
    )


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be read ({error.strerror}); check that the file is there and yours to read"
        ) from None


def _made_by_of(path: Path) -> str:
    """Read from an output what made it; empty if it does not say."""
    try:
        if path.suffix == ".json":
            return str(json.loads(path.read_text(encoding="utf-8"))["made_by"])
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return str(arrays["made_by"])
        with av.open(str(path.absolute())) as container:
            return container.metadata.get("comment", "").removeprefix("soundspot localize ")
    except (OSError, ValueError, KeyError, TypeError, av.FFmpegError):
        return ""


def _as_json(found: Localization, regions: Sequence[Region]) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "confidence": None if found.confidence is None else round(found.confidence, 4),
        "level_dbfs": round(found.level_dbfs, 2) if math.isfinite(found.level_dbfs) else None,
        "boxes": [{name: round(value, 6) for name, value in region._asdict().items()} for region in regions],
    }


def _describe(summary: VideoSummary) -> str:
    total = sum(summary.verdicts.values())
    text = f"{summary.seconds:.2f} s, {summary.frames} pictures, {total} maps, sound {summary.sound}"
    for verdict, words in NOTICES.items():
        if summary.verdicts[verdict]:
            text += f"; {words} in {summary.verdicts[verdict] / total:.0%} of the maps"
    if summary.claimed_s is not None and summary.claimed_s - summary.seconds > 1:
        text += f"; the pictures end there, though the file claims {summary.claimed_s:.2f} s"
    return text


def _share(found: Localization) -> str:
    return "" if found.confidence is None else f" (confidence {found.confidence:.2f})"
