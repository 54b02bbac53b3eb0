"""Check clip lists, boxes and media: of the dataset to train on, and of those the models are only scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.apps.preflight.findings import Preflight
from pipeline.apps.preflight.outputs import map_output, shard_output
from pipeline.common.config import Card, Params, load_card
from pipeline.common.project import CARD_FILE, MAPS_FOLDER, manifest_folder, results_folder
from pipeline.datasets.media_files import media_problems
from pipeline.datasets.prepare import SplitCoverage, no_list, nothing_found, read_splits
from pipeline.evaluation.response_maps import check_same_input
from pipeline.manifests.boxes import boxes_path, read_split_boxes
from pipeline.manifests.clips import Clip, check_held_out, clip_list_path
from pipeline.manifests.prepared import resolve_media_root
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.scorable import validate_for_evaluation
from pipeline.training.class_labels import SEPARATOR as LABEL_SEPARATOR


def check_lists(preflight: Preflight, manifest: Path, card: Card, *, needed: Sequence[str]) -> dict[str, list[Clip]]:
    """Check the scoring protocol and the clip lists of a dataset.

    Parameters
    ----------
    preflight : Preflight
        Collects the problems.
    manifest : Path
        Folder of the lists.
    card : Card
    needed : sequence of str
        Splits that must have a list.

    Returns
    -------
    dict of str to list of Clip
        By split; empty if the lists cannot be read.
    """
    preflight.attempt(lambda: get_protocol(card.evaluation.protocol))
    splits = preflight.attempt(lambda: read_splits(manifest, leaks_allowed=card.leaks_allowed))
    if splits is None:
        return {}
    preflight.problems += [no_list(manifest, split) for split in dict.fromkeys(needed) if split not in splits]
    return splits


def check_scored(
    preflight: Preflight, manifest: Path, card: Card, split: str, *, found: Sequence[Clip], train: Sequence[Clip]
) -> None:
    """Check whether the scored split can be scored. Without a box file, the dataset can still be trained on.

    Parameters
    ----------
    preflight : Preflight
        Collects problems and notes.
    manifest : Path
    card : Card
    split : str
    found, train : sequence of Clip
        The clips of the scored split and of the training split whose media exist.
    """
    if not boxes_path(manifest, split).is_file():
        calibrates = ", and `soundspot calibrate` requires at least 2 clips" if len(found) == 1 else ""
        preflight.notes.append(
            f"no boxes for the split {split!r}: nothing can be scored, but `dvc repro train` works{calibrates}"
        )
        return
    if not found:
        return  # reported by `check_media`
    clip_ids = [clip.clip_id for clip in found]
    boxes = preflight.attempt(lambda: validate_for_evaluation(manifest, split, clip_ids, card.evaluation))
    if boxes is None:
        return
    if n_repeated := len(boxes) - len(set(boxes)):
        preflight.notes.append(
            f"{boxes_path(manifest, split)}: {n_repeated} boxes are listed twice; they count as two annotations where "
            "annotators have to agree"
        )
    labels = {name for clip in train for name in clip.label.split(LABEL_SEPARATOR)}
    nameless = sorted({box.source for box in boxes if box.sounding} - labels)
    if nameless and get_protocol(card.evaluation.protocol).consensus == "per-source":
        preflight.notes.append(
            f"no training clip has the label {nameless[0]!r}, a source of the scored clips: methods with class maps get no "
            "class scores"
        )


def check_media(
    preflight: Preflight, splits: Mapping[str, Sequence[Clip]], card: Card, *, dataset: str, root: Path
) -> dict[str, list[Clip]]:
    """Look for the media of all splits. `prepare` requires that each split has some.

    Parameters
    ----------
    preflight : Preflight
        Collects coverage, problems and notes.
    splits : mapping of str to sequence of Clip
    card : Card
    dataset : str
        Prefixes the names of the splits unless it is the dataset of `preflight`.
    root : Path
        Folder of the media.

    Returns
    -------
    dict of str to list of Clip
        By split, the clips whose media exist or will be rendered.
    """
    prefix = "" if dataset == preflight.dataset else f"{dataset}: "
    available: dict[str, list[Clip]] = {}
    for split, clips in splits.items():
        name = prefix + split
        problems = media_problems(clips, root)
        found = [clip for clip in clips if problems.keys().isdisjoint(clip.media)]
        n_missing = len(clips) - len(found)
        if card.render is not None:
            if n_missing:
                preflight.notes.append(f"{name}: {n_missing} of {len(clips)} videos will be rendered")
            found = list(clips)
        elif not found:
            preflight.problems.append(prefix + nothing_found(dataset, split, clips, root))
        elif n_missing:
            preflight.notes.append(
                f"{name}: {n_missing} of {len(clips)} clips have no media under {root} and will be left out; "
                f"stage prepare lists them in data/{dataset}/missing.csv"
            )
        available[split] = found
        preflight.clips[name] = SplitCoverage(len(clips), len(found))
    return available


def check_cross_dataset(
    preflight: Preflight,
    project: Path,
    params: Params,
    card: Card,
    other: str,
    *,
    train: Sequence[Clip],
    variants: Sequence[str],
    side: int,
) -> None:
    """Check one of `cross_datasets`: card, lists, boxes, media, and overlap with the training clips.

    Parameters
    ----------
    preflight : Preflight
        Collects coverage, problems, notes and outputs.
    project : Path
    params : Params
    card : Card
        Of the dataset that the models are trained on.
    other : str
    train : sequence of Clip
        Training clips.
    variants : sequence of str
    side : int
        Rows and columns of a response map.
    """
    manifest, split = manifest_folder(project, other), params.score_split
    theirs = preflight.attempt(lambda: load_card(manifest))
    if theirs is None:
        return
    trained, given = ({"image_size": each.image_size, **each.audio.model_dump()} for each in (card, theirs))
    preflight.attempt(lambda: check_same_input(trained, given, manifest / CARD_FILE))
    splits = check_lists(preflight, manifest, theirs, needed=(split,))
    if split not in splits:
        return
    preflight.attempt(lambda: read_split_boxes(manifest, split))
    if not theirs.leaks_allowed:
        clip_ids = [clip.clip_id for clip in splits[split]]
        preflight.attempt(lambda: check_held_out(clip_ids, train, where=str(clip_list_path(manifest, split))))
    found = check_media(preflight, splits, theirs, dataset=other, root=resolve_media_root(theirs, project, other))[
        split
    ]
    if found:
        found_ids = [clip.clip_id for clip in found]
        preflight.attempt(lambda: validate_for_evaluation(manifest, split, found_ids, theirs.evaluation))
    preflight.outputs.append(shard_output(params, card, other, split, len(found)))
    for name in variants:
        folder = results_folder(Path(), preflight.dataset, scored_on=other) / MAPS_FOLDER / name
        preflight.outputs.append(map_output(params, folder, len(found), side=side))
