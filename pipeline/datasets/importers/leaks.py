"""Finds training clips that leak from the test set, by clip id and by video. They are an error unless allowed.

Public lists do leak: some "unseen" test clips are in the training lists, which inflates the scores. Media files that two
splits share are found by `pipeline.manifests.clips.find_leaks` when the dataset is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.common.errors import ManifestError
from pipeline.common.text_table import counted
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import ImportOptions

MAX_SHOWN = 50  # leaks in a message


def leaking_ids(
    train: Sequence[str], test: Sequence[str], *, video_of: Callable[[str], str] = lambda clip_id: clip_id
) -> list[str]:
    """Return the training ids that are in the test list, or cut from the same video as a test clip."""
    videos = {video_of(clip_id) for clip_id in test}
    return [clip_id for clip_id in train if video_of(clip_id) in videos]


def apply_leak_policy(
    report: ImportReport, train: Sequence[str], leaks: Sequence[str], options: ImportOptions
) -> list[str]:
    """Apply the leak policy, and return the training ids to use.

    Parameters
    ----------
    report : ImportReport
        Receives the list of leaks.
    train, leaks : sequence of str
        The training ids, and those that leak from the test set.
    options : ImportOptions
        `leaks` is one of ``refuse``: raise; ``drop``: train without them; ``keep``: train on them, to reproduce a
        published score that did. With `check_only`, nothing is raised, so that the caller can print the report first.

    Raises
    ------
    ManifestError
        There are leaks, and the policy is ``refuse``.
    """
    report.leaks = list(leaks)
    if not leaks or options.leaks == "keep":
        return list(train)
    if options.leaks == "refuse" and not options.check_only:
        raise ManifestError(leak_message(report))
    dropped = set(leaks)
    for clip_id in leaks:
        report.leave_out("train", clip_id, "in the test list, or cut from one of its videos")
    return [clip_id for clip_id in train if clip_id not in dropped]


def leak_message(report: ImportReport) -> str:
    """Return the error message: the leaking clips (the first ones if there are many), and what to do."""
    return (
        f"{report.dataset}: {counted(len(report.leaks), 'training clip')} in the test list or cut from its videos: "
        f"{report.listing(report.leaks, MAX_SHOWN)}. Pass --leaks drop to train without them, or --leaks keep to train "
        "on them anyway"
    )
