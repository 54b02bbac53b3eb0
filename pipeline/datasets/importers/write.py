"""Writes an imported dataset atomically: card, clip lists, boxes, report, and a block of training settings.

The folder is built under a temporary name, read back with the strict readers, and only then renamed. An existing folder with
the same card, clips and boxes is kept; another one is only replaced with ``--force``. The card contains
no absolute paths: media outside the project are found through the dataset's environment variable
(`pipeline.manifests.prepared.media_variable`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pipeline.common.config import AudioSettings, load_card
from pipeline.common.errors import ManifestError
from pipeline.common.files import write_json, write_text
from pipeline.common.project import CARD_FILE, PARAMS_FILE, manifest_folder
from pipeline.datasets.importers.lists import shortened
from pipeline.datasets.importers.params_block import PRESET, check_preset, params_with_block
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.replace import REPORT_FILE, replace_folder
from pipeline.manifests.boxes import BOXES_SUFFIX, Box, boxes_path, read_boxes, write_boxes
from pipeline.manifests.clips import Clip, find_leaks, leaking_clips, read_clips, write_clips
from pipeline.manifests.prepared import media_root_from_environment, media_variable

# From the paper: 5 s at 22.05 kHz. From MSSL, which it follows: window 40 ms, hop 20 ms, 64 mel bands.
PAPER_AUDIO = AudioSettings(
    sample_rate=22050, clip_seconds=5.0, n_fft=882, hop_length=441, n_mels=64, power=2.0, log_floor=1.0e-10
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class CardText:
    """The content of a card, as an importer provides it; see `pipeline.common.config.Card`."""

    title: str
    source: str
    license: str
    image_size: int
    protocol: str
    threshold: float = 0.5
    grid: int | None = None  # of mosaics
    audio: AudioSettings = PAPER_AUDIO
    comments: tuple[str, ...] = ()  # where boxes and settings come from, one line each
    media_fingerprint: str = ""  # of media that the importer wrote
    preset: str = PRESET  # the block of params.yaml to copy for the new dataset
    fits_settings: bool = False  # whether its batch size and epochs are fitted to the number of training clips


@dataclass(frozen=True)
class ImportOptions:
    """The options that all importers share."""

    name: str  # of the folder in data_manifests/ and of the block in params.yaml
    media: Path  # media root
    project: Path  # root of the project
    layout: str = "auto"  # name of a media layout; auto detects it
    leaks: str = "refuse"  # or drop, or keep: see `pipeline.datasets.importers.leaks`
    force: bool = False  # replace the dataset if it exists
    check_only: bool = False  # check lists and boxes without media, and write nothing
    report_file: Path | None = None  # file for the full report
    preset: str | None = None  # the block of params.yaml to copy; None: the importer's own choice
    fewest: int = 1  # clips below which a dataset is refused
    reports: list[ImportReport] = field(default_factory=list, compare=False)  # kept here for imports that fail

    def start(self) -> ImportReport:
        """Check the dataset's name and the preset, and create the report. Raises ManifestError or SettingsError."""
        check_name(self.name, self.project)
        if self.preset:
            check_preset(self.project / PARAMS_FILE, self.preset)
        self.reports.append(ImportReport(self.name, file=self.report_file))
        return self.reports[-1]

    def media_to_keep(self) -> str | None:
        """Return the fingerprint of the media that an importer which writes media must not change; None if it may.

        Raises
        ------
        SettingsError
            The dataset exists, and its card is unreadable.
        """
        folder = check_name(self.name, self.project)
        return load_card(folder).media_fingerprint if folder.exists() and not self.force else None

    def write_report(self) -> None:
        """Write the report to `report_file`, if that is set, even if the import has failed."""
        if self.report_file and self.reports:
            write_json(self.report_file, self.reports[-1].as_json())


@dataclass
class Dataset:
    """A dataset that is ready to be written. Empty splits are not written."""

    name: str
    card: CardText
    media: Path
    report: ImportReport
    clips: dict[str, list[Clip]] = field(default_factory=dict)
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    leaks_allowed: bool = False
    fewest: int = 1

    @classmethod
    def of(
        cls,
        options: ImportOptions,
        card: CardText,
        report: ImportReport,
        clips: dict[str, list[Clip]],
        boxes: dict[str, list[Box]],
    ) -> Dataset:
        """Create a dataset, applying ``--leaks`` to training clips that share an id or a file with scored clips."""
        train, scored = clips.get("train", []), _scored(clips)
        shared = find_leaks(train, scored)
        if shared and options.leaks == "drop":
            dropped = leaking_clips(train, scored)
            for clip in train:
                if clip.clip_id in dropped:
                    report.leave_out("train", clip.clip_id, "shares its id or a file with a scored clip")
            clips = {**clips, "train": [clip for clip in train if clip.clip_id not in dropped]}
        if options.leaks == "keep":
            report.shared = shared
        allowed = bool(report.leaks or shared) and options.leaks == "keep"
        card = replace(card, preset=options.preset or card.preset)
        return cls(options.name, card, options.media, report, clips, boxes, allowed, options.fewest)


def check_name(name: str, project: Path) -> Path:
    """Return the manifest folder for a dataset's name. Raises ManifestError if the name is invalid."""
    if not _NAME.fullmatch(name):
        raise ManifestError(f"invalid dataset name {name!r}: use 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return manifest_folder(project, name)


def write_dataset(dataset: Dataset, project: Path, *, force: bool = False) -> None:
    """Check a dataset, then write ``data_manifests/NAME/`` and, if missing, the block `training.NAME` of params.yaml.

    Parameters
    ----------
    dataset : Dataset
        Its report receives the counts of written clips and boxes, notes and hints.
    project : Path
        Folder with ``data_manifests/`` and ``params.yaml``.
    force : bool
        Replace an existing folder with other content.

    Raises
    ------
    ManifestError
        The dataset exists already with other content, has no clips, leaks between train and test, or has boxes for unknown clips. Nothing
        has been written.
    """
    folder = check_name(dataset.name, project)
    _check(dataset)
    _describe(dataset, project)
    n_train = len(dataset.clips.get("train", [])) if dataset.card.fits_settings else None
    params, hint = params_with_block(
        project / PARAMS_FILE, dataset.name, preset=dataset.card.preset, n_train=n_train or None
    )
    dataset.report.hints.append(hint)
    media_root = _media_root(dataset, project)
    write = partial(_write_folder, dataset, media_root=media_root)
    dataset.report.unchanged = not replace_folder(folder, write, force=force)
    if params:
        write_text(project / PARAMS_FILE, params)


def _check(dataset: Dataset) -> None:
    splits = {split: clips for split, clips in dataset.clips.items() if clips}
    if (n := sum(map(len, splits.values()))) < dataset.fewest:
        reasons = Counter(reason for missing in dataset.report.left_out.values() for reason in missing.values())
        why = f"; most frequent reason: {max(sorted(reasons), key=reasons.__getitem__)}" if reasons else ""
        least = f", at least {dataset.fewest} are required" if dataset.fewest > 1 else ""
        if not n:
            raise ManifestError(f"{dataset.name}: no usable clip in {dataset.media}{least}{why}; check this folder")
        raise ManifestError(f"{dataset.name}: usable clips in {dataset.media}: {n}{least}{why}; add more")
    leaks = find_leaks(splits.get("train", []), _scored(splits))
    if leaks and not dataset.leaks_allowed:
        dataset.report.shared = leaks
        raise ManifestError(
            f"{dataset.name}: train and test share {len(leaks)} ids or files: {dataset.report.listing(leaks, 10)}. Pass "
            "--leaks drop to train without them, or --leaks keep to train on them anyway"
        )
    for split, boxes in dataset.boxes.items():
        ids = {clip.clip_id for clip in splits.get(split, [])}
        strangers = sorted({box.clip_id for box in boxes} - ids)
        if strangers:
            raise ManifestError(f"{dataset.name}: boxes for clips that are not in {split}: {shortened(strangers)}")


def _scored(clips: Mapping[str, Sequence[Clip]]) -> list[Clip]:
    return [clip for split, each in clips.items() if split != "train" for clip in each]


def _describe(dataset: Dataset, project: Path) -> None:
    report = dataset.report
    report.used = {split: len(clips) for split, clips in dataset.clips.items() if clips}
    report.n_boxes_used = sum(len(boxes) for boxes in dataset.boxes.values())
    if not any(dataset.boxes.values()):
        report.notes.append("no boxes: you can train a model, but `evaluate` has nothing to score against")
    if not dataset.clips.get("train"):
        report.notes.append("no training clips: score this dataset with a model that was trained on another one")
    if not dataset.clips.get("test"):
        report.notes.append("no test clips: `evaluate` has nothing to score")
    media, given = dataset.media.resolve(), media_root_from_environment(dataset.name)
    if not media.is_relative_to(project.resolve()) and (given is None or (project / given).resolve() != media):
        # The card is committed and shared, so it must not contain a path of this machine.
        report.hints.append(
            f"the media are outside the project, and their path is not stored; "
            f"before each run: export {media_variable(dataset.name)}={shlex.quote(str(media))}"
        )


def _media_root(dataset: Dataset, project: Path) -> str:
    media = dataset.media.resolve()
    if media.is_relative_to(project.resolve()):
        return media.relative_to(project.resolve()).as_posix()
    return f"data/{dataset.name}/media"


def _write_folder(dataset: Dataset, folder: Path, *, media_root: str) -> None:
    write_text(folder / CARD_FILE, card_text(dataset.card, media_root, leaks_allowed=dataset.leaks_allowed))
    for split, clips in dataset.clips.items():
        if clips:
            write_clips(folder / f"{split}.csv", clips)
    for split, boxes in dataset.boxes.items():
        if boxes:
            write_boxes(boxes_path(folder, split), boxes)
    write_json(folder / REPORT_FILE, dataset.report.as_json())
    load_card(folder)
    for path in folder.glob("*.csv"):
        if path.name.endswith(BOXES_SUFFIX):
            read_boxes(path)
        else:
            read_clips(path)


def card_text(card: CardText, media_root: str, *, leaks_allowed: bool = False) -> str:
    """Return a dataset card as YAML, with comments."""
    audio = card.audio
    lines = [
        "# Dataset card: how media are converted to frames and spectrograms, and which protocol scores the dataset.",
        *(f"# {comment}" for comment in card.comments),
        f"title: {_quoted(card.title)}",
        f"source: {_quoted(card.source)}",
        f"license: {_quoted(card.license)}",
        f"media_root: {_quoted(media_root)}   # relative to the project; an environment variable overrides it",
        f"image_size: {card.image_size}   # width and height of the stored frames in pixels; the aspect ratio is not kept",
        "audio:",
        f"  sample_rate: {audio.sample_rate}   # Hz",
        f"  clip_seconds: {audio.clip_seconds}   # window around the clip's center",
        f"  n_fft: {audio.n_fft}   # samples, Hann window",
        f"  hop_length: {audio.hop_length}   # samples",
        f"  n_mels: {audio.n_mels}",
        f"  power: {audio.power}",
        f"  log_floor: {_point(audio.log_floor)}   # ours: digital silence becomes the logarithm of this, not of 2.2e-16",
        "evaluation:",
        f"  protocol: {card.protocol}",
        f"  threshold: {card.threshold}   # smallest cIoU that counts as a success",
    ]
    if card.grid:
        lines.append(f"  grid: {card.grid}   # cells along a side of a mosaic")
    if card.media_fingerprint:
        lines.append(f"media_fingerprint: {_quoted(card.media_fingerprint)}   # of the media that the import wrote")
    if leaks_allowed:
        lines.append("leaks_allowed: true   # train shares clips with test, so scores are not on unseen clips only")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # any JSON string is a valid YAML string


def _point(value: float) -> str:
    mantissa, _, exponent = f"{value:e}".partition("e")  # with a decimal point, because YAML reads 1e-10 as a string
    return f"{float(mantissa)}e{exponent}"
