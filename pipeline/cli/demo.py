"""`soundspot demo`: look at the results of the demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from pipeline.cli.localize import localize as localize_command
from pipeline.cli.options import PATH, default_device
from pipeline.common.project import CLIP_SCORES_FILE, PARAMS_FILE, manifest_folder, results_folder

DATASET, SPLIT = "demo", "test"


@click.group()
def demo() -> None:
    """Look at the results of the demo, after `make demo` or `dvc repro`.

    Example: soundspot demo localize
    """


@demo.command()
@click.option(
    "--clips", "n_clips", type=click.IntRange(min=1), default=1, show_default=True, help="Number of test clips."
)
@click.option("--variant", default="iterative", show_default=True, help="The trained variant whose model is used.")
@click.option("-o", "--output", "folder", type=PATH, default="localized/demo", show_default=True, help="Output folder.")
@click.pass_context
def localize(ctx: click.Context, n_clips: int, variant: str, folder: Path) -> None:
    """Show where the sound comes from in test clips of the demo, as `soundspot localize` does for your own videos.

    The clips are not hand-picked: a single clip is the one with the median cIoU; several are evenly spaced from the worst to
    the best.

    \b
    Example:
      soundspot demo localize
      soundspot demo localize --clips 4 --variant initial
    """
    from pipeline.common.config import load_card, load_params
    from pipeline.common.errors import EvaluationError
    from pipeline.manifests.clips import media_path, read_clips
    from pipeline.manifests.prepared import resolve_media_root
    from pipeline.report.examples import read_ciou

    manifest = manifest_folder(Path(), DATASET)
    root = resolve_media_root(load_card(manifest), Path(), DATASET)
    clips = read_clips(manifest / f"{SPLIT}.csv")
    videos = {clip.clip_id: media_path(root, clip.video) for clip in clips if clip.video}
    seed = load_params(Path(PARAMS_FILE)).seeds[0]
    scores = results_folder(Path(), DATASET) / variant / CLIP_SCORES_FILE
    again = f"with `dataset: {DATASET}` in {PARAMS_FILE}, run `dvc repro`"
    if not scores.is_file():
        raise EvaluationError(f"{scores}: no such scores; {again}, which takes minutes")
    ciou = read_ciou(scores, seed=seed)
    known = {clip.clip_id for clip in clips}
    ciou = {clip_id: value for clip_id, value in ciou.items() if clip_id in videos or clip_id not in known}
    if not ciou or not ciou.keys() <= known:
        raise EvaluationError(f"{scores}: not of seed {seed} and the clips of {manifest}; {again}")
    ctx.invoke(
        localize_command,
        inputs=tuple(videos[clip_id] for clip_id in evenly_scored(ciou, n_clips)),
        folder=folder,
        model=variant,
        dataset=DATASET,
        device=default_device(),
        params_path=Path(PARAMS_FILE),
    )


def evenly_scored(ciou: Mapping[str, float], n_clips: int) -> list[str]:
    """Return ids of clips, evenly spaced from the worst to the best cIoU; the median clip if `n_clips` is 1."""
    ids = sorted(ciou, key=lambda clip_id: (ciou[clip_id], clip_id))
    n = min(n_clips, len(ids))
    return [ids[(2 * i + 1) * len(ids) // (2 * n)] for i in range(n)]
