"""Find the input files of `soundspot localize` and name their outputs.

Conventions
-----------
A job is a video, or an image file plus an audio file; the type is detected from the content. ``NAME.mp4`` becomes
``OUT/NAME.mp4``, and a video with another extension becomes ``OUT/NAME.EXT.mp4``. Images are named the same way, with
``.png`` and ``.npz``. Subfolders of an input folder are reproduced below OUT. With JSON output, ``NAME.json`` is written
next to a video and ``NAME.EXT.json`` next to an image, so that ``a.mp4`` and ``a.png`` do not share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.common.errors import LocalizationError
from pipeline.media.image import is_still

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".wma", ".ac3")
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".heic", ".heif", ".hif", ".avif",
)  # fmt: skip
# Only used to select files in folders; the type of a file is detected from its content.
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".vob", ".3gp", ".3g2", ".ogv", ".mxf", ".rm", ".h264", ".264", ".h265", ".265",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One input and its outputs.

    Attributes
    ----------
    source : Path
        A video or an image file.
    audio : Path or None
        The image's audio file; None for a video, or for an image without one.
    name : Path
        Output name relative to OUT, with the extension of the source.
    is_image : bool
    problem : str
        Why the job cannot run: its input is missing, or its output is that of another job. Empty if it can.
    """

    source: Path
    audio: Path | None
    name: Path
    is_image: bool
    problem: str = ""

    def output(self, folder: Path, suffix: str) -> Path:
        """Return the path of one of the outputs."""
        main = ".png" if self.is_image else ".mp4"
        keeps_extension = self.name.suffix.lower() != main or (self.is_image and suffix == ".json")
        base = self.name if keeps_extension else self.name.with_suffix("")
        return folder / base.parent / (base.name + suffix)

    def outputs(self, folder: Path, *, as_json: bool) -> list[Path]:
        """Return the paths of all outputs, the MP4 or PNG last."""
        suffixes = [".json"] if as_json else []
        suffixes += [".npz", ".png"] if self.is_image else [".mp4"]
        return [self.output(folder, suffix) for suffix in suffixes]


def plan_jobs(inputs: Sequence[Path], folder: Path, *, audio: Path | None = None, as_json: bool = False) -> list[Job]:
    """List the files to localize.

    Parameters
    ----------
    inputs : sequence of Path
        Files of any name, and folders. In a folder, every file with a video, image or audio extension is an input.
    folder : Path
        OUT; files in it are not inputs.
    audio : Path, optional
        Audio file of the image, if a single image is the only input.
    as_json : bool
        Whether JSON is written too.

    Returns
    -------
    list of Job
        A missing input, a folder without media, and the later of two files of a folder with the same output have a `problem`.

    Raises
    ------
    LocalizationError
        `audio` does not exist, `folder` is a file, two inputs would get the same output, an input would be overwritten, or
        `audio` is given although the input is not a single image.
    """
    if folder.exists() and not folder.is_dir():
        raise LocalizationError(f"{folder}: is a file; -o requires a folder for the outputs")
    if audio is not None and not audio.is_file():
        raise LocalizationError(f"{audio}: no such audio file; check --audio")
    found: dict[Path, Path] = {}
    roots: dict[Path, Path] = {}
    problems: dict[Path, str] = {}
    for path in inputs:
        if path.is_dir():
            files = _media_below(path, folder)
            if not files:
                problems[path] = f"{path}: contains no file with a video, image or audio extension"
            found |= {file: file.relative_to(path) for file in files}
            roots |= dict.fromkeys(files, path)
        elif path.exists():
            found[path] = Path(path.name)
        else:
            problems[path] = f"{path}: no such file or folder"
    # Each folder is listed once, not once per image.
    audio_files: dict[Path, dict[str, Path]] = {}
    jobs = []
    for path, name in found.items():
        is_image = is_still(path)
        if is_image and path.parent not in audio_files:
            audio_files[path.parent] = _audio_files_in(path.parent)
        jobs.append(Job(path, audio_files[path.parent].get(path.stem) if is_image else None, name, is_image))
    if audio is not None and not problems:
        if len(jobs) != 1 or not jobs[0].is_image:
            raise LocalizationError(f"{audio}: --audio requires a single image as input")
        jobs = [Job(jobs[0].source, audio, jobs[0].name, True)]
    # An image's audio file is not an input of its own.
    taken = {job.audio for job in jobs}
    jobs = [job for job in jobs if job.source not in taken]
    unusable = [Job(path, None, Path(path.name), False, problem) for path, problem in problems.items()]
    return unusable + _without_collisions(jobs, folder, roots, as_json=as_json)


def _media_below(root: Path, folder: Path) -> list[Path]:
    known = {*AUDIO_SUFFIXES, *IMAGE_SUFFIXES, *VIDEO_SUFFIXES}
    files = (path for path in sorted(root.rglob("*")) if path.suffix.lower() in known and path.is_file())
    out = folder.resolve()
    if out == root.resolve():
        raise LocalizationError(f"{folder}: is the input folder; choose another folder for the outputs")
    # Skip hidden files and folders, such as the "._" files that macOS writes next to media, and earlier outputs.
    return [
        path
        for path in files
        if out not in path.resolve().parents and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]


def _audio_files_in(folder: Path) -> dict[str, Path]:
    """Return the audio files of a folder by stem; if several share a stem, the first in sorted order."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
            found.setdefault(path.stem, path)
    return found


def _without_collisions(jobs: Sequence[Job], folder: Path, roots: Mapping[Path, Path], *, as_json: bool) -> list[Job]:
    """Set `problem` on jobs whose output is taken; `roots` maps each file to its input folder."""
    sources = {job.source.resolve() for job in jobs}
    owner: dict[Path, Job] = {}
    settled = []
    for job in jobs:
        paths = job.outputs(folder, as_json=as_json)[::-1]
        for path in paths:
            if path.resolve() in sources:
                raise LocalizationError(
                    f"{path}: is an input and would be overwritten; choose another folder for the outputs"
                )
        taken = next((path for path in paths if path in owner), None)
        if taken is None:
            owner |= dict.fromkeys(paths, job)
            settled.append(job)
            continue
        other = owner[taken].source
        # Files named explicitly are an error the user can fix at once. In a folder of thousands, one pair must not stop the rest.
        if job.source not in roots or roots[job.source] != roots.get(other):
            raise LocalizationError(
                f"{other} and {job.source} would both be written to {taken}; localize them into two folders"
            )
        reason = f"{job.source}: would overwrite {taken}, the output of {other.name}; localize it into another folder, or rename it"
        settled.append(replace(job, problem=reason))
    return settled
