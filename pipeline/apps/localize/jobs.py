"""Which of one's own files are localized, and into which outputs.

Conventions
-----------
A job is a video, or a picture file with a sound file; the content of a file decides which. ``NAME.mp4`` becomes
``OUT/NAME.mp4``, a video of another ending ``OUT/NAME.ENDING.mp4``, a picture ``….png`` and ``….npz`` likewise; what lies in
folders below an input folder lies in the same folders below OUT. With JSON, there is ``NAME.json`` beside the output of a
video, and beside that of a picture ``NAME.ENDING.json``, so that ``a.mp4`` and ``a.png`` do not share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.common.errors import LocalizationError
from pipeline.media.clip import is_still

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".wma", ".ac3")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".vob", ".3gp", ".3g2", ".ogv", ".mxf", ".rm", ".h264", ".264", ".h265", ".265",
)  # fmt: skip


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
    conflict : str
        Why it cannot be done beside the other jobs; empty if it can.
    """

    source: Path
    sound: Path | None
    name: Path
    is_picture: bool
    conflict: str = ""

    def output(self, folder: Path, suffix: str) -> Path:
        """Return the path of one of the outputs."""
        main = ".png" if self.is_picture else ".mp4"
        is_whole = self.name.suffix.lower() != main or (self.is_picture and suffix == ".json")
        base = self.name if is_whole else self.name.with_suffix("")
        return folder / base.parent / (base.name + suffix)

    def outputs(self, folder: Path, *, as_json: bool) -> list[Path]:
        """Return the paths of all outputs, the one to look at last."""
        suffixes = [".json"] if as_json else []
        suffixes += [".npz", ".png"] if self.is_picture else [".mp4"]
        return [self.output(folder, suffix) for suffix in suffixes]


def plan_jobs(inputs: Sequence[Path], folder: Path, *, sound: Path | None = None, as_json: bool = False) -> list[Job]:
    """Find what is to be localized.

    Parameters
    ----------
    inputs : sequence of Path
        Files, whatever their names, and folders, of which every file with the ending of a video, a picture or a sound is taken.
    folder : Path
        OUT; what lies in it is no input.
    sound : Path, optional
        The sound of the picture, if one picture is the only input.
    as_json : bool
        Whether JSON is among the outputs.

    Returns
    -------
    list of Job
        Where two files of one folder would get the same output, the later one has a `conflict`.

    Raises
    ------
    LocalizationError
        An input or `sound` does not exist, `folder` is a file, two inputs would get the same output, or one would be overwritten;
        or `sound` is given for something else than one picture.
    """
    if folder.exists() and not folder.is_dir():
        raise LocalizationError(f"{folder}: is a file; -o names the folder for the outputs")
    if sound is not None and not sound.is_file():
        raise LocalizationError(f"{sound}: no such sound file; check --audio")
    found: dict[Path, Path] = {}
    roots: dict[Path, Path] = {}
    for path in inputs:
        if path.is_dir():
            files = _media_below(path, folder)
            if not files:
                raise LocalizationError(f"{path}: holds no file with the ending of a video, a picture or a sound")
            found |= {file: file.relative_to(path) for file in files}
            roots |= dict.fromkeys(files, path)
        elif path.exists():
            found[path] = Path(path.name)
        else:
            raise LocalizationError(f"{path}: no such file or folder")
    sounds: dict[Path, dict[str, Path]] = {}
    jobs = []
    for path, name in found.items():
        is_picture = is_still(path)
        if is_picture and path.parent not in sounds:
            sounds[path.parent] = _sounds_in(path.parent)
        jobs.append(Job(path, sounds[path.parent].get(path.stem) if is_picture else None, name, is_picture))
    if sound is not None:
        if len(jobs) != 1 or not jobs[0].is_picture:
            raise LocalizationError(f"{sound}: --audio belongs to one picture, and the input is something else")
        jobs = [Job(jobs[0].source, sound, jobs[0].name, True)]
    taken = {job.sound for job in jobs}
    jobs = [job for job in jobs if job.source not in taken]
    return _without_collisions(jobs, folder, roots, as_json=as_json)


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


def _sounds_in(folder: Path) -> dict[str, Path]:
    """Return the sound files of a folder by their names without ending; of several of one name, the first."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SOUND_SUFFIXES and path.is_file():
            found.setdefault(path.stem, path)
    return found


def _without_collisions(jobs: Sequence[Job], folder: Path, roots: Mapping[Path, Path], *, as_json: bool) -> list[Job]:
    """Return the jobs, each that would get another's output with a conflict; `roots` has the input folder of each file."""
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
        # Whoever names two files can name two folders; in a folder of thousands, one such pair must not end the rest.
        if job.source not in roots or roots[job.source] != roots.get(other):
            raise LocalizationError(
                f"{other} and {job.source} would both become {taken}; localize them into two folders"
            )
        reason = (
            f"{job.source}: would become {taken}, as {other.name} does; localize it into another folder, or rename it"
        )
        settled.append(replace(job, conflict=reason))
    return settled
