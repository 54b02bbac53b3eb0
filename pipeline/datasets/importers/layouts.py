"""Folder layouts of media: detects which one a media root has, and finds the files of clips in it.

A layout names the folders of frames, audio and videos below the media root; ``{last}`` stands for the last character of
an id. Files are named ``<id><suffix>``; the case of the suffix does not matter. A frame with audio is preferred to a
video, because the boxes were drawn on the frame file. If two files match an id, the clip is rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.files import listed
from pipeline.datasets.importers.report import ImportReport
from pipeline.manifests.clips import Clip
from pipeline.manifests.naming import AUDIO_SUFFIXES, FRAME_SUFFIXES, VIDEO_SUFFIXES


@dataclass(frozen=True)
class Layout:
    """One arrangement of media folders. An empty string means that the layout has no such folder."""

    name: str
    frames: str = ""
    audio: str = ""
    videos: str = ""

    def folders(self) -> list[str]:
        """Return the folders that must exist, without the part that depends on an id."""
        named = (folder.split("{", maxsplit=1)[0].rstrip("/") for folder in (self.frames, self.audio, self.videos))
        return sorted({folder for folder in named if folder})

    def describe(self) -> str:
        """Return the layout as text, with example paths."""
        places = (
            [f"{self.frames}/<id>{FRAME_SUFFIXES[0]} + {self.audio}/<id>{AUDIO_SUFFIXES[0]}"] if self.frames else []
        )
        places += [f"{self.videos}/<id>{VIDEO_SUFFIXES[0]}"] if self.videos else []
        return f"{self.name}: {' or '.join(places)}"


FLAT = Layout("flat", frames="frames", audio="audio")


def detect_layout(media: Path, layouts: Sequence[Layout], name: str = "auto") -> Layout:
    """Return the layout of a media folder.

    Parameters
    ----------
    media : Path
        The media root.
    layouts : sequence of Layout
        The known layouts of the dataset.
    name : str
        Name of a layout, or ``auto`` to detect it from the folders that exist.

    Raises
    ------
    ManifestError
        There is no such folder, or none or several of the layouts match. The message lists the known layouts.
    """
    if not media.is_dir():
        raise ManifestError(f"{media}: no such media folder; set it with --media")
    known = "; ".join(layout.describe() for layout in layouts)
    if name != "auto":
        chosen = [layout for layout in layouts if layout.name == name]
        if not chosen:
            raise ManifestError(f"unknown layout {name!r}; known: {known}")
        return chosen[0]
    # Two matching layouts are an error rather than a priority: which copy is the right one cannot be known.
    there = [layout for layout in layouts if all((media / folder).is_dir() for folder in layout.folders())]
    if len(there) != 1:
        found = (
            f"matches {len(there)} layouts; choose one with --layout" if there else "matches none of the known layouts"
        )
        raise ManifestError(f"{media}: {found}. Known layouts: {known}")
    return there[0]


class MediaFinder:
    """Finds the files of clips in a media folder. Lists each folder only once, because folders can be huge."""

    def __init__(self, media: Path, layout: Layout) -> None:
        self.media, self.layout = media, layout
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, clip_id: str, *, centre_s: float | None = None, label: str = "") -> Clip | str:
        """Return the clip with its files or, as text, the reason why it cannot be used."""
        frames = self._files(self.layout.frames, clip_id, FRAME_SUFFIXES)
        audio = self._files(self.layout.audio, clip_id, AUDIO_SUFFIXES)
        videos = self._files(self.layout.videos, clip_id, VIDEO_SUFFIXES)
        for kind, files in (("frames", frames), ("audio files", audio), ("videos", videos)):
            if len(files) > 1:
                return f"several {kind} with this id"
        if frames and audio:
            clip = Clip(clip_id, frame=frames[0], audio=audio[0], centre_s=centre_s, label=label)
        elif videos:
            clip = Clip(clip_id, video=videos[0], centre_s=centre_s, label=label)
        # Reached only without a video: an incomplete pair next to a video is not an error.
        elif frames or audio:
            return "frame without audio" if frames else "audio without a frame"
        else:
            return "no media"
        return unusable(clip, self.media) or clip

    def _files(self, folder: str, clip_id: str, suffixes: Iterable[str]) -> list[str]:
        if not folder:
            return []
        folder = folder.format(last=clip_id[-1])
        if folder not in self._listed:
            self._listed[folder] = by_stem(self.media / folder)
        # Matched by stem instead of probing exact names, because the case of suffixes varies between copies.
        names = self._listed[folder].get(clip_id, [])
        return [f"{folder}/{name}" for name in names if Path(name).suffix.lower() in suffixes]


def by_stem(folder: Path) -> dict[str, list[str]]:
    """Group the file names in a folder by their stem. Returns an empty dict if there is no such folder."""
    stems: dict[str, list[str]] = {}
    for path in listed(folder) if folder.is_dir() else ():
        stems.setdefault(path.stem, []).append(path.name)
    return stems


def unusable(clip: Clip, media: Path) -> str:
    """Return why a clip's files cannot be used (missing, a folder, or empty), or an empty string if they exist."""
    for name in clip.media:
        path = media / name
        if not path.is_file():
            return "no media" if not path.exists() else "not a regular file"
        if path.stat().st_size == 0:
            return "empty file"
    return ""


def find_clips(
    finder: MediaFinder,
    ids: Sequence[str],
    split: str,
    report: ImportReport,
    *,
    centre_s: float | None = None,
    labels: Mapping[str, str] | None = None,
) -> list[Clip]:
    """Find the clips of one split, in the order of `ids`. Unusable clips are reported with the reason."""
    clips = []
    for clip_id in ids:
        clip = finder.find(clip_id, centre_s=centre_s, label=(labels or {}).get(clip_id, ""))
        if isinstance(clip, str):
            report.leave_out(split, clip_id, clip)
        else:
            clips.append(clip)
    return clips


def usable_clips(clips: Sequence[Clip], split: str, media: Path, report: ImportReport) -> list[Clip]:
    """Return the clips whose files exist. The others are reported with the reason."""
    reasons = {clip.clip_id: unusable(clip, media) for clip in clips}
    for clip_id, reason in reasons.items():
        if reason:
            report.leave_out(split, clip_id, reason)
    return [clip for clip in clips if not reasons[clip.clip_id]]
