"""Imports IS3 and datasets in its format: synthetic frames of two objects, each of which sounds in one clip. Test only.

Annotations are JSON: a list of ``{"image": path, "audio": path, "gt_box": [x0, y0, x1, y1]}``, with corners in pixels of
a 224×224 frame. The paths are from the authors' machine, so only the file names are used. A clip's id is the name of
its image, such as ``accordion_female_10438_accordion``: the part before the last ``_`` identifies the pair, the part
after it is the sounding object. Boxes are stored as fractions x / 224, and ``round(224 * fraction)`` recovers the
published number (truncating does not, because 224 is not a power of two).

Media below the media root: ``visual_frames/<image>`` with ``audio_wav/<audio>``, or ``frames/<image>`` with
``audio/<audio>``.

There is no training split: score a model that was trained on another dataset, or pass a clip list to train on, in this
project's format and relative to the same media root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.common.errors import ManifestError
from pipeline.common.reading import read_json
from pipeline.datasets.importers.box_checks import BoxFault, box_faults, refuse_other_schema
from pipeline.datasets.importers.layouts import FLAT, Layout, detect_layout, usable_clips
from pipeline.datasets.importers.leaks import apply_leak_policy, leaking_ids
from pipeline.datasets.importers.lists import checked_id
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import CardText, Dataset, ImportOptions, write_dataset
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import Clip, read_clips

SIDE = 224  # width and height in pixels of the frames that the boxes refer to
LAYOUTS = (Layout("published", frames="visual_frames", audio="audio_wav"), FLAT)
CARD = CardText(
    title="IS3",
    source="Synthetic frames and boxes of Senocak et al. (IS3)",
    license="Set by the publishers of the frames, audio and boxes",
    image_size=SIDE,
    protocol="iiou224",
    comments=(
        "Boxes: the published numbers divided by 224. The ids of a pair are equal up to the last '_'.",
        "audio: ours; the paper's settings for SoundNet-Flickr.",
    ),
)


@dataclass(frozen=True)
class Entry:
    """One annotated clip: its file names, and its box if that is valid."""

    image: str
    audio: str
    box: Box | None


def import_is3(options: ImportOptions, *, annotations: Path, train_clips: Path | None = None) -> ImportReport:
    """Write ``data_manifests/NAME/`` for IS3 or a dataset in its format.

    Parameters
    ----------
    options : ImportOptions
        Layouts: published, flat.
    annotations : Path
        The JSON file.
    train_clips : Path, optional
        Clip list of a training split, with paths relative to the same media root.

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
    # A pair's metric needs both of its clips.
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
    """Read the JSON file, by clip id. Faulty boxes are reported.

    Raises
    ------
    ManifestError
        The file is not a list of records with ``image``, ``audio`` and ``gt_box``, an id has two records, or so many
        boxes are faulty that they cannot be corners in pixels of a 224×224 frame.
    """
    content = read_json(path, ManifestError)
    if not isinstance(content, list) or not content:
        raise ManifestError(f"{path}: expected a list of records with 'image', 'audio' and 'gt_box'")
    entries: dict[str, Entry] = {}
    for number, record in enumerate(content):
        where = f"{path}: record {number}"
        image, audio, values = _fields(record, where)
        clip_id = checked_id(PurePosixPath(image).stem, where)
        if clip_id in entries:
            raise ManifestError(f"{where}: duplicate record for {clip_id}")
        entries[clip_id] = Entry(image, audio, _box(clip_id, values, report))
    refuse_other_schema(report.box_faults, report.n_boxes, path)
    return entries


def _fields(record: Any, where: str) -> tuple[str, str, list[Any]]:
    if not isinstance(record, dict) or not {"image", "audio", "gt_box"} <= record.keys():
        raise ManifestError(f"{where}: expected keys 'image', 'audio' and 'gt_box'")
    image, audio, values = record["image"], record["audio"], record["gt_box"]
    if isinstance(values, str):
        raise ManifestError(f"{where}: 'gt_box' is the path of a mask; use the file with boxes instead of masks")
    if not isinstance(image, str) or not isinstance(audio, str) or not isinstance(values, list):
        raise ManifestError(f"{where}: 'image' and 'audio' must be paths, and 'gt_box' a list of four numbers")
    # The paths are the authors', whatever system the import runs on; annotations made on Windows have backslashes.
    image, audio = (PurePosixPath(path.replace("\\", "/")).name for path in (image, audio))
    return image, audio, values


def _box(clip_id: str, values: Sequence[Any], report: ImportReport) -> Box | None:
    report.n_boxes += 1
    faults = box_faults(values, low=0, high=SIDE)
    if faults:
        report.box_faults.append(BoxFault(clip_id, tuple(map(str, values)), tuple(faults)))
        return None
    return Box(clip_id, clip_id.rpartition("_")[2], "1", True, *(value / SIDE for value in values))


def _clip(clip_id: str, entry: Entry, layout: Layout) -> Clip:
    frame, audio = f"{layout.frames}/{entry.image}", f"{layout.audio}/{entry.audio}"
    return Clip(clip_id, frame=frame, audio=audio, label=clip_id.rpartition("_")[2])


def _note_single_clips(ids: Sequence[str], report: ImportReport) -> None:
    pairs: dict[str, int] = {}
    for clip_id in ids:
        pair = clip_id.rpartition("_")[0]
        pairs[pair] = pairs.get(pair, 0) + 1
    single = sum(1 for count in pairs.values() if count == 1)
    report.notes.append(f"{len(pairs)} pairs" + (f", {single} of them with only one clip" if single else ""))
