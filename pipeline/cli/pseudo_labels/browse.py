"""`soundspot browse`: look through the pseudo-labels of all clips of a run in a web browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import PATH
from pipeline.cli.pseudo_labels.options import shards_option, targeted, with_target
from pipeline.common.console import echo, note

if TYPE_CHECKING:
    from pipeline.apps.inspection.views import Artifacts


@click.command()
@with_target
@targeted
@shards_option
@click.option("--clips", type=PATH, help="clips.csv with labels and media files. Default: data/DATASET/clips.csv.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free port.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the default web browser.")
def browse(artifacts: Artifacts, shards: Path | None, clips: Path | None, port: int, open_browser: bool) -> None:
    """Browse all clips of a run: maps of every epoch, spectrograms and audio, with search and filters.

    The page comes from a server that only this machine can reach (127.0.0.1). It reads the run and changes nothing. Stop it with Ctrl-C.

    \b
    Example:
      soundspot browse iterative
      soundspot browse runs/demo/initial --open
    """
    from pipeline.cli.targets import clip_list, open_shards
    from pipeline.common.errors import ShardError, SoundspotError
    from pipeline.report.browse.run_clips import RunClips
    from pipeline.report.browse.server import HOST, BrowseServer

    opened = open_shards(artifacts.run, shards)
    if opened is None:
        raise ShardError(f"{artifacts.run}: no shards found for this run; pass their folder with --shards")
    listed, media_root = clip_list(artifacts.run, clips)
    try:
        server = BrowseServer(RunClips(artifacts.run, opened, listed, media_root), title=str(artifacts.run), port=port)
    except (OSError, OverflowError) as error:
        raise SoundspotError(f"port {port} of {HOST} cannot be used ({error}); choose another --port") from None
    echo(server.address)
    note("open this address in a browser; stop with Ctrl-C")
    if open_browser:
        click.launch(server.address)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            note("stopped")
