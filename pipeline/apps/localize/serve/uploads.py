"""Localize the files that were dropped on the page: one video, or one image and one audio file.

The limits keep a file that was dropped by mistake, such as a film, from occupying the server for hours.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.apps.localize.jobs import Job
from pipeline.apps.localize.localizer import Localizer
from pipeline.apps.localize.run import run_job
from pipeline.apps.localize.video.overlay import OnProgress
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.common.errors import LocalizationError, SoundspotError
from pipeline.common.reading import read_json
from pipeline.media.image import is_still
from pipeline.media.readable import require_file

MEGABYTE = 1 << 20  # bytes, as Gradio counts them


@dataclass(frozen=True)
class Limits:
    """What the page accepts. The defaults are ours: minutes of work on two cores.

    Attributes
    ----------
    size_mb : float > 0
        Size of one file in megabytes (2^20 bytes).
    duration_s : float > 0
        Duration of a video in seconds.
    """

    size_mb: float = 200.0
    duration_s: float = 300.0


@dataclass(frozen=True)
class Answer:
    """The outputs of `soundspot localize` for one upload.

    Attributes
    ----------
    summary : str
        One line.
    files : list of Path
        The JSON, the NPZ of an image, and last the MP4 or PNG.
    record : dict
        Content of the JSON: the boxes, for a video under `maps`.
    """

    summary: str
    files: list[Path]
    record: dict[str, Any]

    @property
    def media(self) -> Path:
        """The MP4 or PNG."""
        return self.files[-1]


def localize_upload(
    files: Sequence[Path],
    folder: Path,
    localizer: Localizer,
    settings: OverlaySettings,
    limits: Limits,
    *,
    on_progress: OnProgress | None = None,
) -> Answer:
    """Localize one upload.

    Parameters
    ----------
    files : sequence of Path
        One video, or one image and one audio file in any order.
    folder : Path
        For the outputs; emptied first.
    localizer : Localizer
    settings : OverlaySettings
    limits : Limits
    on_progress : callable, optional
        Receives the time reached in a video and its duration.

    Raises
    ------
    LocalizationError
        The files are none of the above, exceed a limit, or cannot be localized. The message names files without their
        folders, which mean nothing to the person at the page.
    """

    def check_duration(time_s: float, total_s: float | None) -> None:
        # The header may claim less than the file contains, so the time reached counts too.
        if max(time_s, total_s or 0) > limits.duration_s:
            raise LocalizationError(
                f"{files[0].name}: longer than {limits.duration_s:g} s; cut it, or start the server with a higher --max-duration"
            )
        if on_progress is not None:
            on_progress(time_s, total_s)

    try:
        for path in files:
            _check_size(path, limits)
        job = _job(files)
        shutil.rmtree(folder, ignore_errors=True)
        summary = run_job(job, folder, localizer, settings, as_json=True, on_progress=check_duration)
        outputs = job.outputs(folder, as_json=True)
        return Answer(summary or "", outputs, read_json(outputs[0], LocalizationError))
    except SoundspotError as error:
        message = str(error)
        for place in {path.parent for path in files}:
            message = message.replace(f"{place}/", "")
        raise LocalizationError(message) from None


def _check_size(path: Path, limits: Limits) -> None:
    require_file(path)
    size = path.stat().st_size / MEGABYTE
    if size > limits.size_mb:
        raise LocalizationError(
            f"{path}: {size:.0f} MB exceed the limit of {limits.size_mb:g} MB; re-encode it, or start the server with a higher "
            "--max-size"
        )


def _job(files: Sequence[Path]) -> Job:
    stills = [path for path in files if is_still(path)]
    others = [path for path in files if path not in stills]
    if not files:
        raise LocalizationError("no file yet; drop a video, or an image and an audio file")
    if len(others) == 1 and len(stills) <= 1:
        source, audio = (stills[0], others[0]) if stills else (others[0], None)
        return Job(source, audio, Path(source.name), bool(stills))
    names = ", ".join(path.name for path in files[:4]) + (", …" if len(files) > 4 else "")
    raise LocalizationError(f"{names}: drop one video, or one image together with one audio file")
