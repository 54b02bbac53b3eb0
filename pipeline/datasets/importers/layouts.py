"""Where the media of a public dataset may lie: a few known folder layouts, told apart by looking.

A layout names the folder of frames, of sounds and of videos below the media root, with ``{last}`` for an id's last
character. A clip's files are called ``<id><suffix>``, in upper or lower case; a frame with a sound is taken before a
video, because boxes were drawn on the frame file. Two files that could both be meant are refused, not chosen between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.report import ImportReport
from pipeline.manifests.clips import Clip

VIDEO_SUFFIXES = (
    ".mp4",
    ".mkv",
    ".webm",
    ".avi",
    ".mov",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".flv",
    ".ts",
    ".ogv",
    ".3gp",
    ".wmv",
)
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")


@dataclass(frozen=True)
class Layout:
    """One arrangement of media folders. An empty string means that the layout has no such folder."""

    name: str
    frames: str = ""
    sounds: str = ""
    videos: str = ""

    def folders(self) -> list[str]:
        """Return the folders that must exist, without the part that depends on an id."""
        named = (folder.split("{", maxsplit=1)[0].rstrip("/") for folder in (self.frames, self.sounds, self.videos))
        return sorted({folder for folder in named if folder})

    def describe(self) -> str:
        """Return the layout as a user would look for it."""
        places = (
            [f"{self.frames}/<id>{FRAME_SUFFIXES[0]} + {self.sounds}/<id>{AUDIO_SUFFIXES[0]}"] if self.frames else []
        )
        places += [f"{self.videos}/<id>{VIDEO_SUFFIXES[0]}"] if self.videos else []
        return f"{self.name}: {' or '.join(places)}"


FLAT = Layout("flat", frames="frames", sounds="audio")


def detect_layout(media: Path, layouts: Sequence[Layout], name: str = "auto") -> Layout:
    """Find out which of the known layouts a media folder has.

    Parameters
    ----------
    media : Path
        The media root.
    layouts : sequence of Layout
        Those that the dataset knows.
    name : str
        Name of the layout, or ``auto`` to look which layout's folders exist.

    Raises
    ------
    ManifestError
        There is no such folder, or none or several of the layouts fit; the message says what was looked for.
    """
    if not media.is_dir():
        raise ManifestError(f"{media}: no such media folder; give it with --media")
    known = "; ".join(layout.describe() for layout in layouts)
    if name != "auto":
        chosen = [layout for layout in layouts if layout.name == name]
        if not chosen:
            raise ManifestError(f"unknown layout {name!r}; known: {known}")
        return chosen[0]
    there = [layout for layout in layouts if all((media / folder).is_dir() for folder in layout.folders())]
    if len(there) != 1:
        found = f"the folders of {len(there)} layouts; name one with --layout" if there else "none of the known layouts"
        raise ManifestError(f"{media}: holds {found}. Looked for {known}")
    return there[0]


class MediaFinder:
    """Looks clips up in a media folder; every folder is listed once, however many clips there are."""

    def __init__(self, media: Path, layout: Layout) -> None:
        self.media, self.layout = media, layout
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, clip_id: str, *, centre_s: float | None = None, label: str = "") -> Clip | str:
        """Return the clip with its files, or, as text, why it cannot be used."""
        frames = self._files(self.layout.frames, clip_id, FRAME_SUFFIXES)
        sounds = self._files(self.layout.sounds, clip_id, AUDIO_SUFFIXES)
        videos = self._files(self.layout.videos, clip_id, VIDEO_SUFFIXES)
        for kind, files in (("frames", frames), ("sounds", sounds), ("videos", videos)):
            if len(files) > 1:
                return f"several {kind} with this id"
        if frames and sounds:
            clip = Clip(clip_id, frame=frames[0], audio=sounds[0], centre_s=centre_s, label=label)
        elif videos:
            clip = Clip(clip_id, video=videos[0], centre_s=centre_s, label=label)
        elif frames or sounds:
            return "no sound beside the frame" if frames else "no frame beside the sound"
        else:
            return "no media"
        return unusable(clip, self.media) or clip

    def _files(self, folder: str, clip_id: str, suffixes: Iterable[str]) -> list[str]:
        if not folder:
            return []
        folder = folder.format(last=clip_id[-1])
        if folder not in self._listed:
            self._listed[folder] = by_stem(self.media / folder)
        names = self._listed[folder].get(clip_id, [])
        return [f"{folder}/{name}" for name in names if Path(name).suffix.lower() in suffixes]


def by_stem(folder: Path) -> dict[str, list[str]]:
    """List the files of one folder by their name without suffix; no folder has no files."""
    stems: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stems.setdefault(path.stem, []).append(path.name)
    return stems


def unusable(clip: Clip, media: Path) -> str:
    """Say why a clip's files cannot be used: missing, a folder, empty. An empty string if nothing is wrong so far."""
    for name in clip.media:
        path = media / name
        if not path.is_file():
            return "no media" if not path.exists() else "a folder stands where a file should"
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
    """Look up the clips of one split, in the order of `ids`; what cannot be used goes to the report, with the reason."""
    clips = []
    for clip_id in ids:
        clip = finder.find(clip_id, centre_s=centre_s, label=(labels or {}).get(clip_id, ""))
        if isinstance(clip, str):
            report.leave_out(split, clip_id, clip)
        else:
            clips.append(clip)
    return clips


def usable_clips(clips: Sequence[Clip], split: str, media: Path, report: ImportReport) -> list[Clip]:
    """Return the clips whose files are there; the others go to the report, with the reason."""
    reasons = {clip.clip_id: unusable(clip, media) for clip in clips}
    for clip_id, reason in reasons.items():
        if reason:
            report.leave_out(split, clip_id, reason)
    return [clip for clip in clips if not reasons[clip.clip_id]]
