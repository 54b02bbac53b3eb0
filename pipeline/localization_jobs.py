"""Which files are localised into which outputs, and one such job after the other.

Conventions
-----------
A job is a video, or a picture file with a sound file; the content of a file decides which. ``NAME.mp4`` becomes
``OUT/NAME.mp4``, a video of another ending ``OUT/NAME.ENDING.mp4``, a picture ``….png`` and ``….npz`` likewise; what lies in
folders below an input folder lies in the same folders below OUT. With JSON, there is ``….json`` beside each.

Outputs are written whole or not at all, the one that is looked at last, so that a job that was stopped at any moment is begun
anew. Every output knows what made it: model, settings, and the sizes of the inputs.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from pipeline.errors import LocalizationError, MediaError
from pipeline.files import fingerprint, replacing, write_bytes, write_json
from pipeline.heat_overlay import blend, enlarged, overlay, rgb_notice
from pipeline.localizer import Localization, Localizer
from pipeline.media import is_still, read_still
from pipeline.media_source import Deadline, MediaSource, require_file
from pipeline.media_windows import SlidingWindows
from pipeline.regions import Region
from pipeline.video_overlay import NOTICES, Instant, OverlaySettings, VideoSummary, overlay_video

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".wma", ".ac3")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".vob", ".3gp", ".3g2", ".ogv", ".mxf", ".rm", ".h264", ".264", ".h265", ".265",
)  # fmt: skip
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Job:
    """One output and what it is made from.

    Attributes
    ----------
    source : Path
        A video or a picture file.
    sound : Path or None
        Of a picture; None for a video, or for a picture that has none.
    name : Path
        Relative to OUT, with the ending of the source.
    is_picture : bool
    """

    source: Path
    sound: Path | None
    name: Path
    is_picture: bool

    def output(self, folder: Path, suffix: str) -> Path:
        """Return the path of one of the outputs."""
        main = ".png" if self.is_picture else ".mp4"
        base = self.name.with_suffix("") if self.name.suffix.lower() == main else self.name
        return folder / base.parent / (base.name + suffix)

    def outputs(self, folder: Path, *, as_json: bool) -> list[Path]:
        """Return the paths of all outputs, the one to look at last."""
        suffixes = [".json"] if as_json else []
        suffixes += [".npz", ".png"] if self.is_picture else [".mp4"]
        return [self.output(folder, suffix) for suffix in suffixes]


def plan_jobs(inputs: Sequence[Path], folder: Path, *, sound: Path | None = None) -> list[Job]:
    """Find what is to be localised.

    Parameters
    ----------
    inputs : sequence of Path
        Files, whatever their names, and folders, of which every file with the ending of a video, a picture or a sound is taken.
    folder : Path
        OUT; what lies in it is no input.
    sound : Path, optional
        The sound of the picture, if one picture is the only input.

    Raises
    ------
    LocalizationError
        An input does not exist, two would get the same output, or one would be overwritten; or `sound` is given for something
        else than one picture.
    """
    found: dict[Path, Path] = {}
    for path in inputs:
        if path.is_dir():
            files = _media_below(path, folder)
            if not files:
                raise LocalizationError(f"{path}: holds no file with the ending of a video, a picture or a sound")
            found |= {file: file.relative_to(path) for file in files}
        elif path.exists():
            found[path] = Path(path.name)
        else:
            raise LocalizationError(f"{path}: no such file or folder")
    jobs = []
    for path, name in found.items():
        is_picture = is_still(path)
        jobs.append(Job(path, _sound_beside(path) if is_picture else None, name, is_picture))
    if sound is not None:
        if len(jobs) != 1 or not jobs[0].is_picture:
            raise LocalizationError(f"{sound}: --audio belongs to one picture, and the input is something else")
        jobs = [Job(jobs[0].source, sound, jobs[0].name, True)]
    taken = {job.sound for job in jobs}
    jobs = [job for job in jobs if job.source not in taken]
    _check_outputs(jobs, folder)
    return jobs


def run_job(
    job: Job,
    folder: Path,
    localizer: Localizer,
    settings: OverlaySettings,
    *,
    as_json: bool = False,
    overwrite: bool = False,
    tell: Callable[[float], None] | None = None,
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
        Gets the time that has been reached, seconds.

    Returns
    -------
    str or None
        What came out, in a few words; None if all was there already.

    Raises
    ------
    MediaError
        The media cannot be used, with the reason.
    LocalizationError
        There are outputs that another model or other settings made.
    OSError
        An output cannot be written.
    """
    require_file(job.source)
    made_by = _made_by(job, localizer, settings)
    outputs = job.outputs(folder, as_json=as_json)
    if not overwrite and all(path.exists() for path in outputs):
        made = {_made_by_of(path) for path in outputs if path.suffix != ".png"}
        if made == {made_by}:
            return None
        raise LocalizationError(
            f"{outputs[-1]}: is there, made from another file, by another model or with other settings; give --overwrite"
        )
    facts = {
        "format_version": FORMAT_VERSION,
        "made_by": made_by,
        "input": str(job.name),
        "model": localizer.name,
        "delta_v": localizer.delta_v,
        "silence_dbfs": localizer.silence_dbfs,
        "miss_rate": localizer.miss_rate if localizer.calibration else None,
    }
    run = _run_picture if job.is_picture else _run_video
    return run(job, folder, localizer, settings, facts, as_json, tell)


def _run_video(
    job: Job,
    folder: Path,
    localizer: Localizer,
    settings: OverlaySettings,
    facts: dict[str, Any],
    as_json: bool,
    tell: Callable[[float], None] | None,
) -> str:
    instants: list[dict[str, Any]] = []

    def note(instant: Instant) -> None:
        instants.append({"time_s": round(instant.time_s, 6), **_as_json(instant.found, instant.regions)})

    with replacing(job.output(folder, ".mp4")) as temporary:
        made_by = f"soundspot localize {facts['made_by']}"
        summary = overlay_video(
            job.source, temporary, localizer, settings, comment=made_by, tell=tell, note=note if as_json else None
        )
        if as_json:
            times = {"seconds": round(summary.seconds, 6), "frames": summary.frames, "smooth_s": settings.smooth_s}
            write_json(job.output(folder, ".json"), {**facts, **times, "maps": instants})
    return _describe(summary)


def _run_picture(
    job: Job,
    folder: Path,
    localizer: Localizer,
    settings: OverlaySettings,
    facts: dict[str, Any],
    as_json: bool,
    tell: Callable[[float], None] | None,
) -> str:
    if job.sound is None:
        raise MediaError(
            f"{job.source}: a picture without a sound; give --audio FILE, or put {job.source.stem}.wav beside it"
        )
    picture = read_still(job.source)
    if picture is None:
        raise MediaError(f"{job.source}: is no picture file any more")
    found = localizer.localize_batch([picture], [_middle_window(job.sound, localizer, settings.time_limit_s)])[0]
    if found.verdict == "silent":
        raise MediaError(
            f"{job.sound}: silent where it is listened to ({found.level_dbfs:.0f} dBFS); nothing to localise"
        )
    height, width = picture.shape[:2]
    regions = localizer.regions(found.response) if found.verdict == "sounding" else []
    arrays: dict[str, Any] = {
        "response": enlarged(found.response, height=height, width=width),
        "cells": found.response,
        "boxes": np.array([region[:5] for region in regions], dtype=np.float64).reshape(-1, 5),
        "verdict": np.array(found.verdict),
        "confidence": np.array(np.nan if found.confidence is None else found.confidence),
        "made_by": np.array(facts["made_by"]),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(job.output(folder, ".npz"), buffer.getvalue())
    if as_json:
        write_json(job.output(folder, ".json"), {**facts, **_as_json(found, regions)})
    if found.verdict == "sounding":
        drawn = overlay(picture, localizer.heat(found.response))
    else:
        drawn = np.array(picture, order="C")
        blend(drawn, rgb_notice(NOTICES[found.verdict], height=height, width=width))
    with replacing(job.output(folder, ".png")) as temporary:
        Image.fromarray(drawn).save(temporary, format="png")
    return f"{width}×{height} pixels, {found.verdict}{_share(found)}"


def _middle_window(path: Path, localizer: Localizer, limit_s: float) -> np.ndarray:
    with MediaSource(path, deadline=Deadline(limit_s, setting="--time-limit")) as source:
        source.stream("audio")
        moment = source.moment(None)
        audio = localizer.audio
        windows = SlidingWindows(source, clip_seconds=audio.clip_seconds, sample_rate=audio.sample_rate)
        return windows.window(moment)


def _media_below(root: Path, folder: Path) -> list[Path]:
    known = {*SOUND_SUFFIXES, *PICTURE_SUFFIXES, *VIDEO_SUFFIXES}
    files = (path for path in sorted(root.rglob("*")) if path.suffix.lower() in known and path.is_file())
    out = folder.resolve()
    if out == root.resolve():
        raise LocalizationError(f"{folder}: is the input itself; choose another folder for the outputs")
    return [
        path
        for path in files
        if out not in path.resolve().parents and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]


def _sound_beside(picture: Path) -> Path | None:
    for path in sorted(picture.parent.glob("*")):
        if path.stem == picture.stem and path.suffix.lower() in SOUND_SUFFIXES and path.is_file():
            return path
    return None


def _check_outputs(jobs: Sequence[Job], folder: Path) -> None:
    sources = {job.source.resolve(): job.source for job in jobs}
    owner: dict[Path, Job] = {}
    for job in jobs:
        for path in reversed(job.outputs(folder, as_json=True)):
            if path.resolve() in sources:
                raise LocalizationError(
                    f"{path}: is an input and would be overwritten; choose another folder for the outputs"
                )
            other = owner.setdefault(path, job)
            if other is not job:
                raise LocalizationError(
                    f"{other.source} and {job.source} would both become {path}; localise them into two folders"
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
            "bytes": [path.stat().st_size for path in (job.source, job.sound) if path is not None and path.exists()],
        }
    )


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
