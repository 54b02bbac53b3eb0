"""Check clip lists, boxes and media: of the dataset to train on, and of those the models are only scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.apps.preflight.findings import Preflight
from pipeline.apps.preflight.outputs import map_output, shard_output
from pipeline.common.config import Card, Params, load_card
from pipeline.common.project import CARD_FILE, MAPS_FOLDER, manifest_folder, results_folder
from pipeline.datasets.prepare import SplitCoverage, media_problems, nothing_found, read_splits
from pipeline.manifests.boxes import boxes_path, read_split_boxes
from pipeline.manifests.clips import Clip, check_held_out
from pipeline.manifests.prepared import resolve_media_root
from pipeline.scoring.protocols import get_protocol


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
    preflight.problems += [
        f"{manifest / split}.csv: no such clip list; import the dataset again, or add it"
        for split in dict.fromkeys(needed)
        if split not in splits
    ]
    return splits


def check_boxes(preflight: Preflight, manifest: Path, split: str) -> None:
    """Check the boxes of the scored split. Without any the dataset can still be trained on."""
    if boxes_path(manifest, split).is_file():
        preflight.attempt(lambda: read_split_boxes(manifest, split))
    else:
        preflight.notes.append(f"no boxes for the split {split!r}: nothing can be scored, but `dvc repro train` works")


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
        found = [clip for clip in clips if not media_problems(clip, root)]
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
    for name in ("image_size", "audio"):
        if getattr(theirs, name) != getattr(card, name):
            preflight.problems.append(
                f"{manifest / CARD_FILE}: {name} differs from that of {preflight.dataset}, which the models are trained on; "
                "copy it from there"
            )
    splits = check_lists(preflight, manifest, theirs, needed=(split,))
    if split not in splits:
        return
    preflight.attempt(lambda: read_split_boxes(manifest, split))
    if not theirs.leaks_allowed:
        clip_ids = [clip.clip_id for clip in splits[split]]
        preflight.attempt(lambda: check_held_out(clip_ids, train, where=f"{manifest / split}.csv"))
    found = check_media(preflight, splits, theirs, dataset=other, root=resolve_media_root(theirs, project, other))[
        split
    ]
    preflight.outputs.append(shard_output(params, card, other, split, len(found)))
    for name in variants:
        folder = results_folder(Path(), preflight.dataset, scored_on=other) / MAPS_FOLDER / name
        preflight.outputs.append(map_output(params, folder, len(found), side=side))
