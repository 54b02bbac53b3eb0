"""Imports SoundNet-Flickr: id lists for training, boxes by several annotators for testing.

The media below the media root have one of two layouts, which is detected:

- official: ``Data/<last digit of id>/<id>.jpg`` with ``<id>.wav``, or ``<id>.mp4``;
- flat: ``frames/<id>.jpg`` with ``audio/<id>.wav``.

For the boxes and their conversion to fractions, see `pipeline.datasets.importers.flickr_boxes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.flickr_boxes import FLICKR_ID, SIDE, RawBoxes, fractional_boxes, read_raw_boxes
from pipeline.datasets.importers.layouts import FLAT, Layout, MediaFinder, detect_layout, find_clips
from pipeline.datasets.importers.leaks import apply_leak_policy, leaking_ids
from pipeline.datasets.importers.lists import drawn, ranked
from pipeline.datasets.importers.report import ImportReport, listed_ids
from pipeline.datasets.importers.silent import SILENT_SPLIT, find_silent_clips, ids_of_pairs, read_silent_pairs
from pipeline.datasets.importers.write import CardText, Dataset, ImportOptions, write_dataset
from pipeline.manifests.boxes import Box

LAYOUTS = (Layout("official", frames="Data/{last}", audio="Data/{last}", videos="Data/{last}"), FLAT)
CARD = CardText(
    title="SoundNet-Flickr",
    source="Flickr clips of SoundNet; boxes by three annotators per clip, from Senocak et al. 2018",
    license="Set by the publishers of the media and boxes; research only",
    image_size=SIDE,
    protocol="paper256",
    comments=(
        "Audio and image size are the paper's: 5 s at 22.05 kHz, 256 x 256; window, hop and mel bands are MSSL's.",
        "Boxes: (x - 1) / 256, because the published numbers are 1-based pixels of a 256 x 256 frame.",
    ),
)


def import_soundnet_flickr(
    options: ImportOptions,
    *,
    train_list: Path,
    boxes: Path,
    test_list: Path | None = None,
    train_size: int | None = None,
    validation_size: int = 0,
    silent: Path | None = None,
    seed: int = 0,
) -> ImportReport:
    """Write ``data_manifests/NAME/`` for SoundNet-Flickr.

    Parameters
    ----------
    options : ImportOptions
        Layouts: official, flat. A training id that is in the test list is a leak.
    train_list : Path
        Ids, one per line.
    boxes : Path
        Folder of XML files, JSON file or pickle; see `pipeline.datasets.importers.flickr_boxes`.
    test_list : Path, optional
        Ids, with or without a second column. By default, all ids with boxes.
    train_size : int, optional
        Size of the training set, drawn from the usable clips. By default, all of them.
    validation_size : int
        Number of clips with boxes, outside the test set, to hold out for tuning settings.
    silent : Path, optional
        List of silent clips for the split ``test_silent``; see `pipeline.datasets.importers.silent`.
    seed : int
        Seed of both draws. A smaller set is a subset of a larger one.

    Raises
    ------
    ManifestError
        A list or a box file is malformed, splits leak, or the media are not found.
    """
    report = options.start()
    raw = read_raw_boxes(boxes)
    ids = {
        "train": listed_ids(train_list, "the training list", report, pattern=FLICKR_ID),
        "test": listed_ids(test_list, "the test list", report, pattern=FLICKR_ID) if test_list else list(raw),
    }
    pairs = read_silent_pairs(silent, report, pattern=FLICKR_ID)
    scored = [*ids["test"], *ids_of_pairs(pairs)]
    if validation_size:
        ids["validation"] = _held_out(raw, scored, validation_size, seed)
    report.listed |= {split: len(members) for split, members in ids.items()}
    # Before any box is dropped: a clip of the test list leaks even if its boxes are unusable.
    ids["train"] = apply_leak_policy(report, ids["train"], leaking_ids(ids["train"], scored), options)
    checked = fractional_boxes(raw, report, boxes)
    for split in [split for split in ids if split != "train"]:
        ids[split] = _annotated(ids[split], raw, checked, split, report)
    ids["train"] = _without_validation(ids["train"], ids.get("validation", []), report)
    if options.check_only:
        return report
    finder = MediaFinder(options.media, detect_layout(options.media, LAYOUTS, options.layout))
    clips = {split: find_clips(finder, members, split, report) for split, members in ids.items()}
    # Draw from the clips with media, so that the training set has the requested size.
    kept = set(drawn([clip.clip_id for clip in clips["train"]], train_size, seed))
    clips["train"] = [clip for clip in clips["train"] if clip.clip_id in kept]
    truth = {
        split: [box for clip in clips[split] for box in checked[clip.clip_id]] for split in clips if split != "train"
    }
    if pairs:
        # SLAVC's metrics need the audible test clips and the silent ones in one split.
        clips[SILENT_SPLIT] = [*clips["test"], *find_silent_clips(finder, pairs, report)]
        truth[SILENT_SPLIT] = truth["test"]
    write_dataset(Dataset.of(options, CARD, report, clips, truth), options.project, force=options.force)
    return report


def _held_out(raw: Mapping[str, object], test: Sequence[str], size: int, seed: int) -> list[str]:
    spare = ranked(set(raw) - set(test), seed)
    if size > len(spare):
        raise ManifestError(
            f"cannot hold out a validation set of {size} clips: only {len(spare)} clips with boxes are outside the test set"
        )
    return spare[:size]


def _annotated(
    ids: Sequence[str], raw: RawBoxes, checked: Mapping[str, list[Box]], split: str, report: ImportReport
) -> list[str]:
    for clip_id in ids:
        if not checked.get(clip_id):
            report.leave_out(split, clip_id, "no usable box" if raw.get(clip_id) else "not annotated")
    return [clip_id for clip_id in ids if checked.get(clip_id)]


def _without_validation(train: Sequence[str], validation: Sequence[str], report: ImportReport) -> list[str]:
    held_out = set(validation)
    for clip_id in train:
        if clip_id in held_out:
            report.leave_out("train", clip_id, "held out for validation")
    return [clip_id for clip_id in train if clip_id not in held_out]
