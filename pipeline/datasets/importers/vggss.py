"""Imports VGG-SS: boxes for test videos of VGGSound.

Annotations are JSON: a list of ``{"file": "<ytid>_<start>", "class": …, "bbox": [[x0, y0, x1, y1], …]}``, with corners in
fractions of the full frame. The official file has faulty boxes (no width, no height, coordinates of about -2.9e16). They
are reported and left out, and so are clips without any valid box.

The boxes were drawn on frame 125 of the 10 s clip at 25 frames per second. The clip's center is therefore 125 / 25 = 5 s,
whatever the frame rate of your copy.

Media below the media root: ``video/<ytid>_<start>.mp4``, or flat, ``frames/<id>.jpg`` with ``audio/<id>.wav``, where the
frame file must be the annotated frame. Training lists have one ``<ytid>_<start>`` per line, or are VGGSound's own CSV
``ytid, start second, label, split``, from which the rows of the split ``train`` are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.errors import ManifestError
from pipeline.common.reading import read_json
from pipeline.common.tables import read_table
from pipeline.datasets.importers.box_checks import BoxFault, box_faults, refuse_other_schema
from pipeline.datasets.importers.layouts import FLAT, Layout, MediaFinder, detect_layout, find_clips
from pipeline.datasets.importers.leaks import apply_leak_policy, leaking_ids
from pipeline.datasets.importers.lists import bare_id, checked_id, distinct, drawn
from pipeline.datasets.importers.report import ImportReport, listed_ids, note_repeats
from pipeline.datasets.importers.silent import SILENT_SPLIT, find_silent_clips, ids_of_pairs, read_silent_pairs
from pipeline.datasets.importers.write import CardText, Dataset, ImportOptions, write_dataset
from pipeline.manifests.boxes import Box

VGG_ID = re.compile(r"[A-Za-z0-9_-]{11}_\d{6}")  # YouTube id, start second
BOX_TIME_S = 125 / 25  # frame 125 at 25 frames per second
LAYOUTS = (Layout("video", videos="video"), FLAT)
CARD = CardText(
    title="VGG-SS",
    source="VGGSound test videos; boxes of Chen et al. 2021 (VGG-SS)",
    license="Set by the publishers of the annotations and by the uploaders of the videos on YouTube",
    image_size=224,
    protocol="vggss224",
    comments=(
        "Boxes: fractions as published, drawn on frame 125 at 25 frames per second, hence centre_s 5.",
        "audio: ours; the paper's settings for SoundNet-Flickr. Other methods use 3 to 10 s of these clips.",
    ),
)


@dataclass(frozen=True)
class Annotations:
    """Content of the JSON file, by clip id, in the order of the file."""

    labels: dict[str, str]
    boxes: dict[str, list[Box]]  # valid boxes only, so the list can be empty


def import_vggss(
    options: ImportOptions,
    *,
    annotations: Path,
    test_list: Path | None = None,
    train_list: Path | None = None,
    train_size: int | None = None,
    silent: Path | None = None,
    seed: int = 0,
) -> ImportReport:
    """Write ``data_manifests/NAME/`` for VGG-SS.

    Parameters
    ----------
    options : ImportOptions
        Layouts: video, flat. A training clip from a video of the test list is a leak, even if it is another part.
    annotations : Path
        The JSON file.
    test_list : Path, optional
        Ids to test on, one per line, for example only the heard or unheard classes. By default, all annotated ids.
    train_list : Path, optional
        Ids to train on. Without it, the dataset is for testing only.
    train_size : int, optional
        Size of the training set, drawn from the usable clips. By default, all of them.
    silent : Path, optional
        List of silent clips for the split ``test_silent``; see `pipeline.datasets.importers.silent`.
    seed : int
        Seed of the draw. A smaller set is a subset of a larger one.

    Raises
    ------
    ManifestError
        A file is malformed, splits leak, or the media are not found.
    """
    report = options.start()
    truth = read_annotations(annotations, report)
    test = listed_ids(test_list, "the test list", report, pattern=VGG_ID) if test_list else list(truth.boxes)
    train, labels = read_train_list(train_list, report) if train_list else ([], {})
    report.listed = {"train": len(train), "test": len(test)} if train_list else {"test": len(test)}
    pairs = read_silent_pairs(silent, report, pattern=VGG_ID)
    scored = [*test, *ids_of_pairs(pairs)]
    # Before any box is dropped: a clip of the test list leaks even if its boxes are unusable.
    train = apply_leak_policy(report, train, leaking_ids(train, scored, video_of=video_of), options)
    test = _annotated(test, truth, report)
    if options.check_only:
        return report
    finder = MediaFinder(options.media, detect_layout(options.media, LAYOUTS, options.layout))
    clips = {
        split: find_clips(finder, ids, split, report, centre_s=BOX_TIME_S, labels={**labels, **truth.labels})
        for split, ids in (("train", train), ("test", test))
    }
    kept = set(drawn([clip.clip_id for clip in clips["train"]], train_size, seed)) if train_list else set()
    clips["train"] = [clip for clip in clips["train"] if clip.clip_id in kept]
    boxes = {"test": [box for clip in clips["test"] for box in truth.boxes[clip.clip_id]]}
    if pairs:
        clips[SILENT_SPLIT] = [*clips["test"], *find_silent_clips(finder, pairs, report, centre_s=BOX_TIME_S)]
        boxes[SILENT_SPLIT] = boxes["test"]
    write_dataset(Dataset.of(options, CARD, report, clips, boxes), options.project, force=options.force)
    return report


def video_of(clip_id: str) -> str:
    """Return the YouTube id of ``<ytid>_<start>``."""
    return clip_id.rpartition("_")[0]


def read_annotations(path: Path, report: ImportReport) -> Annotations:
    """Read the official JSON file. Faulty boxes are reported.

    Raises
    ------
    ManifestError
        The file is not a list of records with ``file``, ``class`` and ``bbox``, an id has two records, or so many boxes
        are faulty that they cannot be corners in fractions.
    """
    content = read_json(path, ManifestError)
    if not isinstance(content, list):
        raise ManifestError(f"{path}: expected a list of records with 'file', 'class' and 'bbox'")
    truth = Annotations({}, {})
    for number, record in enumerate(content):
        where = f"{path}: record {number}"
        clip_id, label, rows = _fields(record, where)
        if clip_id in truth.boxes:
            raise ManifestError(f"{where}: duplicate record for {clip_id}")
        truth.labels[clip_id] = label
        truth.boxes[clip_id] = list(_good_boxes(clip_id, rows, report))
    refuse_other_schema(report.box_faults, report.n_boxes, path)
    return truth


def read_train_list(path: Path, report: ImportReport) -> tuple[list[str], dict[str, str]]:
    """Read training ids and, if the list has them, labels.

    Returns
    -------
    ids : list of str
        Without duplicates, in the order of the list.
    labels : dict
        Id → label.

    Raises
    ------
    ManifestError
        A row is neither an id (with or without a label) nor a row of VGGSound's CSV. File and line are named.
    """
    ids: list[str] = []
    labels: dict[str, str] = {}
    for line, cells in read_table(path):
        where = f"{path}:{line}"
        # A row of VGGSound's own CSV; the start second is not zero-padded there.
        if len(cells) == 4 and cells[1].isdecimal():
            if cells[3] != "train":
                continue
            cells = [f"{cells[0]}_{int(cells[1]):06d}", cells[2]]
        if len(cells) > 2:
            raise ManifestError(f"{where}: {len(cells)} columns; expected an id, or ytid, start, label, split")
        clip_id = checked_id(bare_id(cells[0]), where, pattern=VGG_ID)
        ids.append(clip_id)
        if len(cells) == 2 and cells[1]:
            labels[clip_id] = cells[1]
    if not ids:
        raise ManifestError(f"{path}: contains no training ids")
    once = distinct(ids)
    note_repeats(report, once.repeated, "the training list")
    return once.ids, labels


def _fields(record: Any, where: str) -> tuple[str, str, list[Any]]:
    if not isinstance(record, dict) or not {"file", "class", "bbox"} <= record.keys():
        raise ManifestError(f"{where}: expected keys 'file', 'class' and 'bbox'")
    clip_id, label, rows = record["file"], record["class"], record["bbox"]
    if not isinstance(clip_id, str) or not isinstance(label, str) or not isinstance(rows, list):
        raise ManifestError(f"{where}: 'file' and 'class' must be strings, and 'bbox' a list of boxes")
    return checked_id(clip_id, where, pattern=VGG_ID), label, rows


def _good_boxes(clip_id: str, rows: Sequence[Any], report: ImportReport) -> Iterator[Box]:
    for row in rows:
        report.n_boxes += 1
        values = row if isinstance(row, list) else [row]
        faults = box_faults(values, low=0, high=1)
        if faults:
            report.box_faults.append(BoxFault(clip_id, tuple(map(str, values)), tuple(faults)))
        else:
            # A clip's boxes are several objects by one annotator, not several opinions about one object.
            yield Box(clip_id, "annotators", "1", True, *map(float, values))


def _annotated(ids: Sequence[str], truth: Annotations, report: ImportReport) -> list[str]:
    for clip_id in ids:
        if not truth.boxes.get(clip_id):
            report.leave_out("test", clip_id, "no usable box" if clip_id in truth.boxes else "not annotated")
    return [clip_id for clip_id in ids if truth.boxes.get(clip_id)]
