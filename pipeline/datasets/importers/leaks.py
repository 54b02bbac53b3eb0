"""Clips that are in train and in test: found by clip id and by video, and refused unless the user says otherwise.

Public lists do leak, so that "unseen" test clips were trained on; what a score means depends on it. Files that two
splits share are found by `pipeline.manifests.clips.find_leaks` when the dataset is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import ImportOptions

POLICIES = ("refuse", "drop", "keep")
MAX_SHOWN = 50  # leaks in a message


def leaking_ids(
    train: Sequence[str], test: Sequence[str], *, video_of: Callable[[str], str] = lambda clip_id: clip_id
) -> list[str]:
    """Return the training ids that are in the test list, or that are cut from a video of the test list."""
    videos = {video_of(clip_id) for clip_id in test}
    return [clip_id for clip_id in train if video_of(clip_id) in videos]


def apply_leak_policy(
    report: ImportReport, train: Sequence[str], leaks: Sequence[str], options: ImportOptions
) -> list[str]:
    """Return the training ids to use, after what the user said about leaks.

    Parameters
    ----------
    report : ImportReport
        Gets the list of leaks.
    train, leaks : sequence of str
        The training ids, and those of them that belong to the test list.
    options : ImportOptions
        `leaks` refuse raises; drop trains without them; keep trains on them, to reproduce a published number that did.
        `check_only` never raises: the caller prints the report first.

    Raises
    ------
    ManifestError
        There are leaks, and they are refused.
    """
    report.leaks = list(leaks)
    if not leaks or options.leaks == "keep":
        return list(train)
    if options.leaks == "refuse" and not options.check_only:
        raise ManifestError(leak_message(report))
    gone = set(leaks)
    for clip_id in leaks:
        report.leave_out("train", clip_id, "belongs to the test list")
    return [clip_id for clip_id in train if clip_id not in gone]


def leak_message(report: ImportReport) -> str:
    """Return the error that lists what leaks from test to train, or the first of it and where the rest is; and what to do."""
    return (
        f"{report.dataset}: {len(report.leaks)} training clips are in the test list or are cut from its videos: "
        f"{report.listing(report.leaks, MAX_SHOWN)}. --leaks drop trains without them, --leaks keep trains on them all the same"
    )
