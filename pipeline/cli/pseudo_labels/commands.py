"""`soundspot pseudo-labels`, or `soundspot pl`: inspect the pseudo-labels that each epoch's model gave the training set.

`export` and `verify` are in `pipeline.cli.pseudo_labels.files`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import PATH
from pipeline.cli.pseudo_labels.files import export, verify
from pipeline.cli.pseudo_labels.options import (
    center_of,
    center_option,
    check_ending,
    epoch_option,
    epoch_or_file,
    frames_of,
    is_plain,
    json_option,
    output_option,
    save_figure,
    shards_option,
    show_value,
    targeted,
    terminal_png,
    with_target,
)
from pipeline.common.console import LazyGroup, note

if TYPE_CHECKING:
    from pipeline.apps.inspection.views import Artifacts

IN_TERMINAL = 2  # neighbors; with more, each image would be tiny


@click.group("pseudo-labels", cls=LazyGroup)
def pseudo_labels() -> None:
    """Inspect the pseudo-labels of each epoch; `soundspot pl` for short.

    TARGET is a run folder, one epoch's file, or the name of a variant. Name a clip by its id or by a unique prefix of it.

    \b
    Example:
      soundspot pl list iterative
      soundspot pl show iterative last train-00042 -o clip.png
    """


@pseudo_labels.command("list")
@with_target
@targeted
@center_option
@json_option
def list_(artifacts: Artifacts, center: bool | None, as_json: bool) -> None:
    """List the epochs: sounding fraction, change since the previous epoch, positives per clip, diagnostics, size.

    The change is 1 - mean IoU of the sounding regions. The positives are those of Eq. 6. With more than 4096 clips they are estimated from a sample.
    The diagnostics are from history.csv: share of peaks on the border of the frame, mean cosine of the audio embeddings,
    rise of the peak with the clip's own audio, effective ranks of the audio (a) and of the visual features (V).

    Example: soundspot pl list iterative
    """
    from pipeline.apps.inspection.text import epochs_text
    from pipeline.apps.inspection.views import list_epochs

    summaries = list(list_epochs(artifacts, center=center_of(artifacts, center)))
    show_value([asdict(each) for each in summaries], lambda: epochs_text(summaries, plain=is_plain()), as_json)


@pseudo_labels.command()
@with_target
@click.argument("words", nargs=-1, required=True, metavar="[EPOCH] CLIP")
@targeted
@click.option("-k", type=click.IntRange(min=1), default=5, show_default=True, help="Number of audio neighbors.")
@click.option("--no-image", is_flag=True, help="Text only, even if the terminal can show images.")
@center_option
@shards_option
@output_option("Write the image as PNG instead of showing it.")
@json_option
def show(
    artifacts: Artifacts,
    words: tuple[str, ...],
    k: int,
    no_image: bool,
    center: bool | None,
    shards: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show one clip: its map, range, sounding fraction and peak, and its nearest clips by audio.

    EPOCH is a number, first, or last (default). With -o the image is written to a file; otherwise it is shown in the
    terminal if that supports images (kitty, iTerm2).

    \b
    Example:
      soundspot pl show iterative 3 train-00042
      soundspot pl show runs/demo/iterative/pseudo_labels/epoch_003.h5 train-00042 -o clip.png
    """
    from pipeline.apps.inspection.terminal_images import encode, image_protocol
    from pipeline.apps.inspection.text import clip_text
    from pipeline.apps.inspection.views import find_clip, view_clip

    if len(words) > 2:
        raise click.UsageError(f"expected [EPOCH] CLIP, got {' '.join(words)}")
    check_ending(output, ".png")
    labels = artifacts.open(words[0] if len(words) == 2 else "last")
    view = view_clip(labels, find_clip(labels, words[-1]), k=k, center=center_of(artifacts, center))
    show_value(asdict(view), lambda: clip_text(view, plain=is_plain()), as_json)
    protocol = None if no_image or as_json else image_protocol(os.environ, is_terminal=sys.stdout.isatty())
    if output or protocol:
        from pipeline.apps.inspection.figures import clip_figure  # imports matplotlib

        frames = frames_of(artifacts, shards)
        if output:
            save_figure(clip_figure(view, labels, frames), output)
        elif protocol:
            figure = clip_figure(view, labels, frames, most=IN_TERMINAL)
            click.echo(encode(terminal_png(figure), protocol), nl=False)


@pseudo_labels.command()
@with_target
@click.argument("before")
@click.argument("after")
@targeted
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Number of clips to list.")
@shards_option
@output_option("Write a gallery of the clips that changed most, .png or .html.")
@json_option
def compare(
    artifacts: Artifacts, before: str, after: str, top: int, shards: Path | None, output: Path | None, as_json: bool
) -> None:
    """Compare the sounding regions of two epochs: the distribution of mask IoU, and the clips that changed most.

    BEFORE and AFTER are epochs of TARGET or files, so you can also compare two runs.

    \b
    Example:
      soundspot pl compare iterative 0 4 -o changes.html
      soundspot pl compare iterative last runs/demo/initial/pseudo_labels/epoch_004.h5
    """
    from pipeline.apps.inspection.measures import compare as compare_labels
    from pipeline.apps.inspection.text import comparison_text
    from pipeline.common.files import write_text

    check_ending(output, ".png", ".html")
    first, second = (epoch_or_file(artifacts, word) for word in (before, after))
    comparison = compare_labels(first, second, top=top)
    levels = [labels.attrs["delta_v"] for labels in (first, second)]
    if levels[0] != levels[1]:
        note(
            f"note: δ_v differs ({levels[0]:g} and {levels[1]:g}), so sounding regions differ even where maps are equal"
        )
    show_value(asdict(comparison), lambda: comparison_text(comparison, plain=is_plain()), as_json)
    if output is None:
        return
    from pipeline.apps.inspection.figures import comparison_figure, comparison_page  # imports matplotlib

    if output.suffix == ".html":
        write_text(output, comparison_page(comparison, first, second, frames_of(artifacts, shards)))
        note(f"wrote {output}")
    else:
        save_figure(comparison_figure(comparison, first, second, frames_of(artifacts, shards)), output)


@pseudo_labels.command()
@with_target
@click.argument("clip")
@targeted
@epoch_option
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="Number of clips to find.")
@center_option
@shards_option
@output_option("Write the clips and their maps as PNG.")
@json_option
def neighbors(
    artifacts: Artifacts,
    clip: str,
    epoch: str,
    k: int,
    center: bool | None,
    shards: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Find the clips whose audio is most similar to one clip's, and whether they are related (y = 1 at δ_a).

    Example: soundspot pl neighbors iterative train-00042 -k 5
    """
    from pipeline.apps.inspection.text import neighbors_text
    from pipeline.apps.inspection.views import find_clip, view_clip

    check_ending(output, ".png")
    labels = artifacts.open(epoch)
    view = view_clip(labels, find_clip(labels, clip), k=k, center=center_of(artifacts, center))
    show_value(asdict(view.neighborhood), lambda: neighbors_text(view.neighborhood), as_json)
    if output:
        from pipeline.apps.inspection.figures import clip_figure  # imports matplotlib

        save_figure(clip_figure(view, labels, frames_of(artifacts, shards)), output)


@pseudo_labels.command()
@with_target
@targeted
@epoch_option
@click.option("--bins", type=click.IntRange(1, 1000), default=20, show_default=True)
@center_option
@output_option("Write the histograms as PNG.")
@json_option
def histogram(
    artifacts: Artifacts, epoch: str, bins: int, center: bool | None, output: Path | None, as_json: bool
) -> None:
    """Show histograms of responses (R̃, with δ_v marked) and of audio similarity (cosines of ã, with δ_a marked).

    Example: soundspot pl histogram iterative --epoch 2
    """
    from pipeline.apps.inspection.measures import response_histogram, similarity_histogram
    from pipeline.apps.inspection.text import histogram_text

    check_ending(output, ".png")
    labels = artifacts.open(epoch)
    similarity = similarity_histogram(labels, center=center_of(artifacts, center), bins=bins)
    both = [response_histogram(labels, bins=bins), similarity]
    show_value(
        [asdict(each) for each in both],
        lambda: "\n".join(histogram_text(each, plain=is_plain()) for each in both),
        as_json,
    )
    if output:
        from pipeline.apps.inspection.figures import histogram_figure  # imports matplotlib

        save_figure(histogram_figure(both), output)


@pseudo_labels.command()
@with_target
@targeted
@center_option
@click.option("--clips", type=PATH, help="Clip list with class labels. Default: data/DATASET/clips.csv.")
@output_option("Write the values as CSV.")
@json_option
def relation(artifacts: Artifacts, center: bool | None, clips: Path | None, output: Path | None, as_json: bool) -> None:
    """Show how many clips have related audio in each epoch, at its δ_a and at a recommended one.

    This is the relation y of Eq. 6.

    The first table is the distribution of the cosines of ã over pairs of clips. The second one has the number of clips of
    the training set that are related to a clip and, if clips have class labels, precision and recall of the relation. The
    recommended δ_a does not use the labels: above it, a pair more likely than not belongs to the most similar pairs.

    Example: soundspot pl relation iterative -o relation.csv
    """
    from pipeline.apps.inspection.relation import relation_epochs, relation_rows, relation_text
    from pipeline.cli.targets import training_labels
    from pipeline.common.files import write_csv

    check_ending(output, ".csv")
    label_sets = training_labels(artifacts.run, clips)
    if not any(label_sets.values()):
        note("note: no class labels of these clips, so the relation is shown without precision and recall")
    epochs = list(relation_epochs(artifacts, center=center_of(artifacts, center), label_sets=label_sets))
    show_value([asdict(each) for each in epochs], lambda: relation_text(epochs, plain=is_plain()), as_json)
    if output:
        write_csv(output, *relation_rows(epochs))
        note(f"wrote {output}")


for command in (export, verify):
    pseudo_labels.add_command(command)

# The same commands under a short name, hidden so that --help lists them once.
pl = LazyGroup("pl", commands=pseudo_labels.commands, help=pseudo_labels.help, hidden=True)
