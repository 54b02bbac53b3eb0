"""The part of a dry run that looks at a dataset's clip lists and media, be it learned from or only scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.apps.preflight.findings import DryRun
from pipeline.common.config import Card
from pipeline.datasets.prepare import SplitCoverage, media_problems, nothing_found, read_splits
from pipeline.manifests.clips import Clip
from pipeline.scoring.protocols import get_protocol


def check_lists(run: DryRun, manifest: Path, card: Card, *, needed: Sequence[str]) -> dict[str, list[Clip]]:
    """Check the scoring rule and the clip lists of a dataset.

    Parameters
    ----------
    run : DryRun
        Gets problems.
    manifest : Path
        Folder of the lists.
    card : Card
    needed : sequence of str
        Splits that must be among them.

    Returns
    -------
    dict of str to list of Clip
        By split; empty where the lists cannot be read.
    """
    run.holds(lambda: get_protocol(card.evaluation.protocol))
    splits: dict[str, list[Clip]] = {}
    if run.holds(lambda: splits.update(read_splits(manifest, leaks_allowed=card.leaks_allowed))):
        run.problems += [
            f"{manifest / split}.csv: no such clip list; import the dataset again, or add it"
            for split in dict.fromkeys(needed)
            if split not in splits
        ]
    return splits


def check_media(
    run: DryRun, splits: Mapping[str, Sequence[Clip]], card: Card, *, dataset: str, root: Path
) -> dict[str, list[Clip]]:
    """Look for the media of all splits, of each of which `prepare` asks for some clips.

    Parameters
    ----------
    run : DryRun
        Gets clips, problems and notes.
    splits : mapping of str to sequence of Clip
    card : Card
    dataset : str
        That they belong to; its name stands before each split unless it is the one of `run`.
    root : Path
        Folder of the media.

    Returns
    -------
    dict of str to list of Clip
        Those whose media are there or will be rendered.
    """
    prefix = "" if dataset == run.dataset else f"{dataset}: "
    there: dict[str, list[Clip]] = {}
    for split, clips in splits.items():
        name = prefix + split
        found = [clip for clip in clips if not media_problems(clip, root)]
        n_missing = len(clips) - len(found)
        if card.render is not None:
            if n_missing:
                run.notes.append(f"{name}: {n_missing} of {len(clips)} videos are still to be rendered")
            found = list(clips)
        elif not found:
            run.problems.append(prefix + nothing_found(dataset, split, clips, root))
        elif n_missing:
            run.notes.append(
                f"{name}: {n_missing} of {len(clips)} clips have no media under {root} and will be left out; "
                f"data/{dataset}/missing.csv lists them when they have been prepared"
            )
        there[split] = found
        run.clips[name] = SplitCoverage(len(clips), len(found))
    return there
