"""`soundspot pseudo-labels export` and `verify`: convert an epoch's file for other programs, and check all files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import PATH
from pipeline.cli.pseudo_labels.options import (
    check_ending,
    epoch_option,
    frames_of,
    json_option,
    shards_option,
    show_value,
    targeted,
    with_target,
)
from pipeline.common.console import echo, note
from pipeline.common.text_table import counted

if TYPE_CHECKING:
    from pipeline.apps.inspection.views import Artifacts


@click.command()
@with_target
@targeted
@epoch_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["npz", "png", "coco"]),
    required=True,
    help="npz: arrays. png: one image per clip. coco: sounding regions.",
)
@click.option("-o", "--output", type=PATH, required=True, help="Output file; for png, a folder.")
@click.option("--clip", "clips", multiple=True, help="Export only this clip; may be repeated.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@shards_option
def export(
    artifacts: Artifacts,
    epoch: str,
    format_: str,
    output: Path,
    clips: tuple[str, ...],
    overwrite: bool,
    shards: Path | None,
) -> None:
    """Export an epoch's pseudo-labels for other programs.

    npz: all fields. png: CLIP.png, the map over the frame. coco: each connected part of a sounding region with run
    lengths, box, area and score, in pixels of the frame (the frame size is read from the shards).

    \b
    Example:
      soundspot pl export iterative --format coco -o regions.json
      soundspot pl export iterative --format png -o images --clip train-00042
    """
    from tqdm import tqdm

    from pipeline.apps.inspection.export import check_free, export_coco, export_npz, export_png, image_path
    from pipeline.apps.inspection.views import find_clip
    from pipeline.common.console import progress_disabled

    if format_ != "png":
        check_ending(output, ".npz" if format_ == "npz" else ".json")
    labels = artifacts.open(epoch)
    if clips:
        labels = labels.select([find_clip(labels, clip) for clip in dict.fromkeys(clips)])
    check_free([image_path(output, clip) for clip in labels] if format_ == "png" else [output], overwrite=overwrite)
    if format_ == "npz":
        export_npz(output, labels)
    elif format_ == "coco":
        n_regions = export_coco(output, labels, side=_frame_side(artifacts, shards))
        note(counted(n_regions, "sounding region"))
    else:
        images = export_png(output, labels, frames_of(artifacts, shards))
        for _ in tqdm(images, total=len(labels), unit="clip", leave=False, disable=progress_disabled()):
            pass
    note(f"wrote {counted(len(labels), 'clip')} to {output}")


def _frame_side(artifacts: Artifacts, shards: Path | None) -> int:
    from pipeline.cli.targets import open_shards
    from pipeline.common.errors import PseudoLabelError

    opened = open_shards(artifacts.run, shards)
    if opened is None:
        raise PseudoLabelError(
            f"{artifacts.run}: no shards of its training set, so the frame size is unknown; pass their folder with --shards"
        )
    return opened.image_size


@click.command()
@with_target
@targeted
@shards_option
@json_option
def verify(artifacts: Artifacts, shards: Path | None, as_json: bool) -> None:
    """Check that all files of a run are complete and belong to its model.pt and its shards.

    Checks the pseudo-labels of every epoch, the checkpoints that the run keeps, and what its method computed before an epoch.
    All data are read, so every checksum is verified. The exit code is 1 if there is a problem.

    Example: soundspot pl verify iterative
    """
    from pipeline.apps.inspection.verify import verify_artifacts
    from pipeline.cli.targets import open_shards
    from pipeline.common.errors import PseudoLabelError, ShardError

    opened, unusable = None, []
    try:
        opened = open_shards(artifacts.run, shards)
    except ShardError as error:
        unusable.append(str(error))
    found = verify_artifacts(artifacts, shards=opened)
    found.problems.extend(unusable)
    lines = [f"damaged: {each.path}: {problem}" for each in found.artifacts for problem in each.problems]
    lines += [f"damaged: {problem}" for problem in found.problems] + [f"note: {note}" for note in found.notes]
    for line in lines:
        echo(line, err=True)
    good = "".join(f"good: {each.path}\n" for each in found.artifacts if not each.problems)
    show_value(asdict(found) | {"n_problems": found.n_problems}, lambda: good, as_json)
    if found.n_problems:
        raise PseudoLabelError(
            f"{artifacts.run}: {counted(found.n_problems, 'problem')}; rerun the stage that writes it"
        )
