"""The clips of a run as the viewer reads them: one page at a time, so that the size of the run does not matter.

Frames, spectrograms and audio are addresses that the browser loads when it shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from pipeline.common.errors import PseudoLabelError
from pipeline.manifests.clips import Clip
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.report.examples import read_epoch_maps
from pipeline.report.page.galleries import MOST_EPOCHS, label_gallery
from pipeline.report.page.media import clip_audio, frame_image, log_mel_image
from pipeline.scoring.protocols import get_protocol
from pipeline.shards.reader import ShardSet
from pipeline.training.artifacts import artifact_paths

PAGE_CLIPS = 48
_DIGITS = 12  # of an offset; Python refuses to read thousands
PROTOCOL = "paper256"  # only its upsampling is used
SORTS = {
    "name": "in the order of the clip list",
    "largest": "largest region first",
    "smallest": "smallest region first",
    "changed": "most changed first",
    "settled": "least changed first",
}


class RunClips:
    """Pseudo-labels of one run, with the frames and the audio of its clips.

    Parameters
    ----------
    run : Path
        Folder of one seed.
    shards : ShardSet
        What the run was trained on.
    clips : mapping of str to Clip
        The clip list, for labels and media files; clips may be missing.
    media_root : Path
        Folder of the media files, which may be missing.

    Raises
    ------
    EvaluationError
        The run has no pseudo-labels.
    PseudoLabelError
        They are damaged, or of clips that the shards do not have.
    """

    def __init__(self, run: Path, shards: ShardSet, clips: Mapping[str, Clip], media_root: Path) -> None:
        self.run, self.shards, self.clips, self.media_root = run, shards, clips, media_root
        paths = artifact_paths(run)
        self.first, self.last = PseudoLabels.open(paths[0]), PseudoLabels.open(paths[-1])
        self.clip_ids = list(self.last.clip_ids)
        self._place = {clip_id: place for place, clip_id in enumerate(shards.clip_ids)}
        missing = [clip_id for clip_id in self.clip_ids if clip_id not in self._place]
        if missing:
            raise PseudoLabelError(
                f"{paths[-1]}: clip {missing[0]!r} is not among the {len(shards)} clips of the shards; pass the folder of the run's own "
                "shards with --shards"
            )

    def gallery(self, /, **query: str) -> dict[str, Any]:
        """Return one page of the clips that match a query, as `pipeline.report.page.galleries` describes a gallery.

        Parameters
        ----------
        query
            ``text`` is part of a clip id, ``label`` is ``all`` or ``=LABEL``, ``sort`` one of `SORTS`. ``offset`` is the place of
            the first clip, rounded down to a page; ``clip`` is a clip that the page must hold. All may be left out.
        """
        found = self._find(query)
        offset = found.index(query["clip"]) if query.get("clip") in found else _number(query.get("offset", "0"))
        offset = min(offset, max(len(found) - 1, 0)) // PAGE_CLIPS * PAGE_CLIPS
        clip_ids = found[offset : offset + PAGE_CLIPS]
        # Without a match, the first clip stands in to give the shapes.
        maps = read_epoch_maps({self.run.name: self.run}, clip_ids or self.clip_ids[:1], most=MOST_EPOCHS)
        gallery = label_gallery(maps, [self._entry(clip_id) for clip_id in clip_ids], get_protocol(PROTOCOL))
        return gallery | {
            "total": len(self.clip_ids),
            "found": len(found),
            "offset": offset,
            "size_of_page": PAGE_CLIPS,
            "labels": self._labels,
            "sorts": list(SORTS.items()),
        }

    def medium(self, kind: str, clip_id: str) -> str:
        """Return the ``frame``, ``mel`` or ``audio`` of a clip as a data URI. Raises KeyError if there is none."""
        frames, log_mels = self.shards.read([self._place[clip_id]])
        if kind == "frame":
            return frame_image(frames[0])
        if kind == "mel":
            return log_mel_image(log_mels[0])
        settings = self.shards.settings
        uri, note = clip_audio(
            self.clips.get(clip_id),
            self.media_root,
            clip_seconds=float(settings["clip_seconds"]),
            sample_rate=int(settings["sample_rate"]),
        )
        if not uri:
            raise KeyError(note)
        return uri

    @cached_property
    def _labels(self) -> list[str]:
        return sorted({self._label(clip_id) for clip_id in self.clip_ids})

    @cached_property
    def _regions(self) -> np.ndarray:
        """Share of sounding cells after the last epoch, (n,)."""
        return self.last.sounding_fraction

    @cached_property
    def _agreement(self) -> np.ndarray:
        """IoU of each clip's sounding cells after the first and after the last epoch, (n,)."""
        parts = []
        for before, after in zip(self.first.select(self.clip_ids).blocks(), self.last.blocks(), strict=True):
            either, both = (before.masks | after.masks).sum(axis=(1, 2)), (before.masks & after.masks).sum(axis=(1, 2))
            parts.append(np.where(either == 0, 1.0, both / np.maximum(either, 1)))
        return np.concatenate(parts)

    def _find(self, query: Mapping[str, str]) -> list[str]:
        text, label = query.get("text", "").casefold(), query.get("label", "all")
        places = [
            place
            for place, clip_id in enumerate(self.clip_ids)
            if text in clip_id.casefold() and label in ("all", f"={self._label(clip_id)}")
        ]
        keys = {
            "largest": lambda: -self._regions,
            "smallest": lambda: self._regions,
            "changed": lambda: self._agreement,
            "settled": lambda: -self._agreement,
        }
        sort = query.get("sort", "name")
        if sort in keys:
            values = keys[sort]()
            places.sort(key=lambda place: values[place])  # stable, so equal clips keep the order of the list
        return [self.clip_ids[place] for place in places]

    def _label(self, clip_id: str) -> str:
        clip = self.clips.get(clip_id)
        return clip.label if clip else ""

    def _entry(self, clip_id: str) -> dict[str, Any]:
        address = quote(clip_id, safe="")
        clip = self.clips.get(clip_id)
        medium = (clip.video or clip.audio) if clip else ""
        # A store on the network is asked when the audio is played, and by then may answer that it is missing.
        there = bool(medium) and (not isinstance(self.media_root, Path) or (self.media_root / medium).is_file())
        return {
            "id": clip_id,
            "label": self._label(clip_id),
            "frame": f"frame?clip={address}",
            "mel": f"mel?clip={address}",
            "audio": f"audio?clip={address}" if there else "",
            "note": "" if there else "No audio: the media file is missing.",
        }


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < _DIGITS else 0
