"""Stage `prepare`: checks a dataset's clip lists against the media on disk.

If the card has a `render` block, the media are rendered first. Files in the output folder:

- ``clips.csv``: the clips with all their files (columns ``split`` and those of a clip list);
- ``missing.csv``: the problems of the other clips (``split, clip_id, path, problem``);
- ``coverage.json``: the counts of each split;
- ``fingerprints.json``: a fingerprint of each split's existing clips ("" for train, validation or test without a list),
  and, under ``media``, a fingerprint of media that were rendered or written by an importer ("" for other media).

Only existence is checked here. Files that cannot be decoded are rejected by the extraction.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.common.files import DAY_S, fingerprint, listed, remove_leftovers, write_csv, write_json
from pipeline.common.project import CLIPS_FILE
from pipeline.common.tables import spoiled
from pipeline.datasets.demo.dataset import render_media
from pipeline.datasets.media_files import media_problems, near_name
from pipeline.manifests.boxes import BOXES_SUFFIX, boxes_path, read_boxes
from pipeline.manifests.clips import (
    TEST_SPLIT,
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
    Clip,
    clip_list_path,
    clip_row,
    find_leaks,
    media_path,
    read_clips,
)
from pipeline.manifests.naming import Names
from pipeline.manifests.parquet import PARQUET_SUFFIX
from pipeline.manifests.prepared import (
    COVERAGE_FILE,
    FINGERPRINTS_FILE,
    MISSING_FILE,
    check_fills_batch,
    media_variable,
    write_prepared_clips,
)
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.scorable import validate_for_evaluation

_BOXES = BOXES_SUFFIX.removesuffix(".csv")
_SPLIT_ORDER = (TRAIN_SPLIT, VALIDATION_SPLIT, TEST_SPLIT)
_SHOWN = 3  # examples in a message


@dataclass(frozen=True)
class SplitCoverage:
    """Number of clips of a split that are listed, and that have all their files."""

    listed: int
    found: int


@dataclass(frozen=True)
class Coverage:
    """How much of a dataset exists on disk.

    Attributes
    ----------
    splits : mapping of str to SplitCoverage
    media : str
        Fingerprint of media that were rendered or written by an importer; empty for other media.
    missing : tuple of str
        The first few missing files.
    """

    splits: Mapping[str, SplitCoverage]
    media: str
    missing: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return one line for each split, and one for the missing files, if any."""
        lines = [f"{name}: {n.found} of {n.listed} clips found" for name, n in self.splits.items()]
        if self.missing:
            lines.append(f"missing files: {', '.join(self.missing)} (full list: {MISSING_FILE})")
        return "\n".join(lines)


def prepare_dataset(
    manifest_folder: Path,
    output_folder: Path,
    *,
    media_root: Path,
    scheduler: str | None,
    workers: int | None,
    score_split: str | None = None,
    must_be_scored: bool = False,
    batch_size: int | None = None,
) -> Coverage:
    """List the clips that exist, after rendering the dataset's media if its card has a `render` block.

    What a later stage would refuse in the dataset is refused here, by the same functions.

    Parameters
    ----------
    manifest_folder : Path
        Folder of the card, the clip lists and the boxes.
    output_folder : Path
        Folder for clips.csv, missing.csv, coverage.json and fingerprints.json.
    media_root : Path
        The lists' paths are relative to it; see `pipeline.manifests.prepared.resolve_media_root`.
    scheduler, workers
        As for `pipeline.common.cluster.run_tasks`; for rendering only.
    score_split : str, optional
        The split to be scored, if it has a clip list and boxes.
    must_be_scored : bool
        Refuse a dataset whose `score_split` has no clip list or no boxes, because it is used for nothing else.
    batch_size : int, optional
        Of a dataset to be trained on, if it has a training split.

    Raises
    ------
    SettingsError, EvaluationError
        The card is malformed, or names an unknown protocol; `score_split` cannot be scored
        (`pipeline.scoring.scorable.validate_for_evaluation`).
    TrainingError
        The training split does not fill a batch.
    ManifestError
        A list is malformed; splits share clips or files; boxes belong to no clip of their split; a split has no files
        at all; the output folder cannot be written.
    """
    card = load_card(manifest_folder)
    get_protocol(card.evaluation.protocol)  # detect a mistyped protocol now, not after hours of training
    splits = read_splits(manifest_folder, leaks_allowed=card.leaks_allowed)
    media = card.media_fingerprint
    if card.render is not None:
        media = render_media(
            list(itertools.chain.from_iterable(splits.values())),
            media_root=media_root,
            seed=card.render.seed,
            context=card.render.context,
            scheduler=scheduler,
            workers=workers,
        )
    problems = media_problems(itertools.chain.from_iterable(splits.values()), media_root)
    found = {name: [clip for clip in clips if problems.keys().isdisjoint(clip.media)] for name, clips in splits.items()}
    for name, clips in splits.items():
        if not found[name]:
            raise ManifestError(nothing_found(manifest_folder.name, name, clips, media_root))
    if batch_size and TRAIN_SPLIT in found:
        check_fills_batch(len(found[TRAIN_SPLIT]), batch_size)
    if score_split and must_be_scored and score_split not in found:
        raise ManifestError(no_list(manifest_folder, score_split))
    if score_split in found and (must_be_scored or boxes_path(manifest_folder, score_split).is_file()):
        clip_ids = [clip.clip_id for clip in found[score_split]]
        validate_for_evaluation(manifest_folder, score_split, clip_ids, card.evaluation)
    listed: dict[Path, Names] = {}
    missing = [
        (name, clip.clip_id, medium, problems[medium] + near_name(media_path(media_root, medium), listed))
        for name, clips in splits.items()
        for clip in clips
        for medium in clip.media
        if medium in problems
    ]
    counts = {name: SplitCoverage(len(clips), len(found[name])) for name, clips in splits.items()}
    coverage = Coverage(counts, media, tuple(row[2] for row in missing[:_SHOWN]))
    _write(output_folder, found, missing, coverage)
    return coverage


def read_splits(manifest_folder: Path, *, leaks_allowed: bool = False) -> dict[str, list[Clip]]:
    """Read all clip lists of a manifest folder, and check the lists and boxes against each other.

    Parameters
    ----------
    manifest_folder : Path
    leaks_allowed : bool
        Allow splits to overlap; from the card's `leaks_allowed`.

    Returns
    -------
    dict
        The clips of each split: train, validation, test, then any others by name.

    Raises
    ------
    ManifestError
        There is no clip list, a list or a box file is malformed, boxes belong to no clip of their split, or train or
        validation shares a clip id or a file with another split.
    """
    if unread := sorted(manifest_folder.glob(f"*{_BOXES}{PARQUET_SUFFIX}")):
        raise ManifestError(
            f"{unread[0]}: boxes are always CSV; write them to {unread[0].stem}.csv and remove this file"
        )
    names = {path.stem for path in listed(manifest_folder) if path.suffix in (".csv", PARQUET_SUFFIX)}
    ranks = {name: rank for rank, name in enumerate(_SPLIT_ORDER)}
    order = sorted(
        (name for name in names if not name.endswith(_BOXES)), key=lambda name: (ranks.get(name, len(ranks)), name)
    )
    if not order:
        raise ManifestError(f"{manifest_folder}: no clip list (train.csv, test.csv, ...)")
    paths = {name: clip_list_path(manifest_folder, name) for name in order}
    splits = {name: read_clips(path) for name, path in paths.items()}
    for name in sorted(name for name in names if name.endswith(_BOXES)):
        _check_boxes(manifest_folder / f"{name}.csv", splits)
    for one, other in itertools.combinations(order, 2) if not leaks_allowed else ():
        # Splits that are only scored may overlap, such as all test clips and those of unheard classes.
        leaks = find_leaks(splits[one], splits[other]) if one in (TRAIN_SPLIT, VALIDATION_SPLIT) else []
        if leaks:
            more = f"; and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
            raise ManifestError(
                f"{manifest_folder}: {paths[one].name} and {paths[other].name} overlap: {'; '.join(leaks[:_SHOWN])}{more}. "
                f"Remove them from {paths[one].name}"
            )
    return splits


def _check_boxes(path: Path, splits: Mapping[str, Sequence[Clip]]) -> None:
    split = path.stem.removesuffix(_BOXES)
    if split not in splits:
        raise ManifestError(f"{path}: these boxes have no clip list; {split}.csv is missing")
    known = {clip.clip_id for clip in splits[split]}
    strangers = sorted({box.clip_id for box in read_boxes(path)} - known)
    if strangers:
        meant = Names((clip_id, clip_id) for clip_id in known).find(strangers[0])
        hint = f"; the list has {meant[0]!r}, which a program may have changed" if meant else spoiled(strangers[0])
        raise ManifestError(
            f"{path}: has boxes for {len(strangers)} clips that are not in {clip_list_path(path.parent, split).name}, "
            f"such as {strangers[0]!r}{hint}"
        )


def no_list(manifest: Path, split: str) -> str:
    """Return the error message for a split without a clip list."""
    return f"{manifest / split}.csv: no such clip list; import the dataset again, or add it"


def nothing_found(dataset: str, split: str, clips: Sequence[Clip], media_root: Path) -> str:
    """Return the error message for a split without a single complete clip."""
    example = media_path(media_root, clips[0].media[0])
    return (
        f"{split}: none of the {len(clips)} clips was found below the media root {media_root}; for example, {example} is "
        f"missing or empty{near_name(example, {})}. Set {media_variable(dataset)} to the folder of the media, or fix media_root in the card"
    )


def _write(
    folder: Path, found: Mapping[str, Sequence[Clip]], missing: Sequence[Sequence[str]], coverage: Coverage
) -> None:
    counts = {name: asdict(count) for name, count in coverage.splits.items()}
    # DVC reads these as parameters, and a missing key is an error there: hence "" for a split without a list.
    prints = dict.fromkeys(_SPLIT_ORDER, "")
    prints |= {name: fingerprint([clip_row(clip) for clip in clips]) for name, clips in found.items()}
    try:
        remove_leftovers(folder, min_age_s=DAY_S)
        write_prepared_clips(folder / CLIPS_FILE, found)
        write_csv(folder / MISSING_FILE, ("split", "clip_id", "path", "problem"), missing)
        write_json(folder / COVERAGE_FILE, counts)
        write_json(folder / FINGERPRINTS_FILE, {**prints, "media": coverage.media})
    except OSError as error:
        raise ManifestError(f"{folder}: cannot be written: {error}") from None
