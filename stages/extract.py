"""Stage `extract@NAME-SPLIT`: extract the central frames and log-mel spectrograms of one split into HDF5 shards."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.console import run_command
from stages.options import (
    FOLDER,
    fresh_option,
    manifest_option,
    params_option,
    scheduler_option,
    verify_option,
    workers_option,
)


@click.command()
@manifest_option
@click.option("--clips", type=FOLDER, required=True, help="clips.csv, written by the stage prepare.")
@click.option("--split", required=True, help="Name of the split.")
@click.option("--out", type=FOLDER, required=True, help="Folder for the shards, shards.json and rejects.csv.")
@params_option
@scheduler_option
@workers_option
@fresh_option
@verify_option
def main(
    manifest: Path,
    clips: Path,
    split: str,
    out: Path,
    params_path: Path,
    scheduler: str | None,
    workers: int | None,
    fresh: bool,
    verify: bool,
) -> None:
    """Extract one split.

    Example: python -m stages.extract --manifest data_manifests/demo --clips data/demo/clips.csv --split test
    --out data/demo/shards/test
    """
    from pipeline.common.config import load_card, load_params
    from pipeline.common.record import restore_output
    from pipeline.extraction.extract import extract_split
    from pipeline.manifests.prepared import (
        FINGERPRINTS_FILE,
        read_media_fingerprint,
        resolve_media_root,
    )

    if not fresh:
        restore_output(out)
    card, settings = load_card(manifest), load_params(params_path).extract
    extract_split(
        clips,
        split,
        media_root=resolve_media_root(card, Path.cwd(), manifest.name),
        folder=out,
        audio=card.audio,
        image_size=card.image_size,
        clips_per_shard=settings.clips_per_shard,
        max_reject_fraction=settings.max_reject_fraction,
        clip_time_limit_s=settings.clip_time_limit_s,
        scheduler=scheduler,
        workers=workers,
        encoding=settings.encoding,
        media=read_media_fingerprint(clips.with_name(FINGERPRINTS_FILE)),
        fresh=fresh,
        verify=verify,
    )


if __name__ == "__main__":
    run_command(main)
