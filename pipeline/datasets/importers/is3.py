"""IS3 and sets of its form: synthetic frames that show two objects, each sounding in a clip of its own; test only.

Annotations are JSON, a list of ``{"image": path, "audio": path, "gt_box": [x0, y0, x1, y1]}`` with corners in pixels of a
frame of 224×224. The paths are those of the authors' machine: only the file names are used. A clip's id is the image's
name, such as ``accordion_female_10438_accordion``: what stands before the last ``_`` names the pair, what stands after
it the object that sounds. A box becomes the fractions x / 224; ``round(224 * fraction)`` is the published number again
(rounding down is not: 224 is no power of two).

Media, below the media root: ``visual_frames/<image>`` with ``audio_wav/<audio>``, or ``frames/<image>`` with
``audio/<audio>``.

There is no training split. A model trained on another dataset is scored on it; or give a clip list to train on, in the
columns of this project and relative to the same media root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.layouts import FLAT, Layout, detect_layout, usable_clips
from pipeline.datasets.importers.leaks import apply_leak_policy, leaking_ids
from pipeline.datasets.importers.lists import BoxFault, box_faults, checked_id, read_json, refuse_other_schema
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import CardText, Dataset, ImportOptions, write_dataset
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import Clip, read_clips

SIDE = 224  # pixels of the frame that the boxes refer to
LAYOUTS = (Layout("published", frames="visual_frames", sounds="audio_wav"), FLAT)
CARD = CardText(
    title="IS3",
    source="Synthetic frames and boxes of Senocak et al. (IS3)",
    license="Not ours to give: frames, sounds and boxes come from their publishers",
    image_size=SIDE,
    protocol="iiou224",
    comments=(
        "Boxes: x / 224 of the published numbers. Clips of a pair share their id up to the last '_'.",
        "audio: ours, the paper's setting for SoundNet-Flickr.",
    ),
)


@dataclass(frozen=True)
class Entry:
    """One annotated clip: file names and, if it is a good one, the box."""

    image: str
    audio: str
    box: Box | None


def import_is3(options: ImportOptions, *, annotations: Path, train_clips: Path | None = None) -> ImportReport:
    """Write ``data_manifests/NAME/`` for IS3 or a set of its form.

    Parameters
    ----------
    options : ImportOptions
        Layouts: published, flat.
    annotations : Path
        The JSON.
    train_clips : Path, optional
        A clip list to train on, with paths relative to the same media root.

    Raises
    ------
    ManifestError
        A file is malformed, splits leak, or the media are not found.
    """
    report = options.start()
    entries = read_entries(annotations, report)
    train = {clip.clip_id: clip for clip in read_clips(train_clips)} if train_clips else {}
    report.listed = {"train": len(train), "test": len(entries)} if train_clips else {"test": len(entries)}
    train_ids = apply_leak_policy(report, list(train), leaking_ids(list(train), list(entries)), options)
    for clip_id, entry in entries.items():
        if entry.box is None:
            report.leave_out("test", clip_id, "no usable box")
    _note_single_clips(list(entries), report)
    if options.check_only:
        return report
    layout = detect_layout(options.media, LAYOUTS, options.layout)
    test = [_clip(clip_id, entry, layout) for clip_id, entry in entries.items() if entry.box]
    clips = {
        "train": usable_clips([train[clip_id] for clip_id in train_ids], "train", options.media, report),
        "test": usable_clips(test, "test", options.media, report),
    }
    boxes = {"test": [box for clip in clips["test"] if (box := entries[clip.clip_id].box)]}
    write_dataset(Dataset.of(options, CARD, report, clips, boxes), options.project, force=options.force)
    return report


def read_entries(path: Path, report: ImportReport) -> dict[str, Entry]:
    """Read the JSON by clip id; faulty boxes go to the report.

    Raises
    ------
    ManifestError
        Not a list of records with ``image``, ``audio`` and ``gt_box``, a second record for an id, or so many faulty
        boxes that the file holds something else than corners in pixels of 224.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise ManifestError(f"{path}: expected a list of records with 'image', 'audio' and 'gt_box'")
    entries: dict[str, Entry] = {}
    for number, record in enumerate(content):
        where = f"{path}: record {number}"
        image, audio, values = _fields(record, where)
        clip_id = checked_id(PurePosixPath(image).stem, where)
        if clip_id in entries:
            raise ManifestError(f"{where}: a second record for {clip_id}")
        entries[clip_id] = Entry(image, audio, _box(clip_id, values, report))
    refuse_other_schema(report.box_faults, report.n_boxes, path)
    return entries


def _fields(record: Any, where: str) -> tuple[str, str, list[Any]]:
    if not isinstance(record, dict) or not {"image", "audio", "gt_box"} <= record.keys():
        raise ManifestError(f"{where}: expected the keys 'image', 'audio' and 'gt_box'")
    image, audio, values = record["image"], record["audio"], record["gt_box"]
    if isinstance(values, str):
        raise ManifestError(f"{where}: gt_box is the path of a mask; use the file with boxes, not that with masks")
    if not isinstance(image, str) or not isinstance(audio, str) or not isinstance(values, list):
        raise ManifestError(f"{where}: 'image' and 'audio' are paths and 'gt_box' is a list of four numbers")
    return PurePosixPath(image).name, PurePosixPath(audio).name, values


def _box(clip_id: str, values: Sequence[Any], report: ImportReport) -> Box | None:
    report.n_boxes += 1
    faults = box_faults(values, low=0, high=SIDE)
    if faults:
        report.box_faults.append(BoxFault(clip_id, tuple(map(str, values)), tuple(faults)))
        return None
    return Box(clip_id, clip_id.rpartition("_")[2], "1", True, *(value / SIDE for value in values))


def _clip(clip_id: str, entry: Entry, layout: Layout) -> Clip:
    frame, audio = f"{layout.frames}/{entry.image}", f"{layout.sounds}/{entry.audio}"
    return Clip(clip_id, frame=frame, audio=audio, label=clip_id.rpartition("_")[2])


def _note_single_clips(ids: Sequence[str], report: ImportReport) -> None:
    pairs: dict[str, int] = {}
    for clip_id in ids:
        pair = clip_id.rpartition("_")[0]
        pairs[pair] = pairs.get(pair, 0) + 1
    single = sum(1 for count in pairs.values() if count == 1)
    report.notes.append(f"{len(pairs)} pairs" + (f", {single} of them with one clip only" if single else ""))
