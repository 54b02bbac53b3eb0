"""The `soundspot` command. Subcommands are imported on first use; the table below lists their modules.

Exit codes and error lines: `pipeline.common.console`.
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.common.console import LazyGroup, configure_output, echo, run_command

COMMANDS = {
    "train": "pipeline.cli.train:train",
    "demo": "pipeline.cli.demo:demo",
    "import": "pipeline.cli.importing.commands:imports",
    "doctor": "pipeline.cli.doctor:doctor",
    "check": "pipeline.cli.check:check",
    "localize": "pipeline.cli.localize:localize",
    "serve": "pipeline.cli.serve:serve",
    "calibrate": "pipeline.cli.calibrate:calibrate",
    "export": "pipeline.cli.export:export",
    "tag": "pipeline.cli.tag:tag",
    "scores": "pipeline.cli.scoring.scores:scores",
    "evaluate": "pipeline.cli.scoring.evaluate:evaluate",
    "protocols": "pipeline.cli.scoring.evaluate:protocols",
    "search": "pipeline.cli.scoring.search:search",
    "sensitivity": "pipeline.cli.scoring.sensitivity:sensitivity",
    "evidence": "pipeline.cli.scoring.evidence:evidence",
    "browse": "pipeline.cli.pseudo_labels.browse:browse",
    "pseudo-labels": "pipeline.cli.pseudo_labels.commands:pseudo_labels",
    "pl": "pipeline.cli.pseudo_labels.commands:pl",  # alias
}


@click.group(cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="soundspot")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars or notes; only results and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print details, and the traceback of an error.")
@click.pass_context
def soundspot(ctx: click.Context, quiet: bool, verbose: bool) -> None:
    """Learn from unlabeled videos where in the frame a sound comes from.

    `soundspot train` turns a folder of videos into a model. `dvc repro` runs the same stages for any dataset; the other
    commands cover the steps before and after them.

    \b
    Example:
      soundspot train videos
      soundspot --quiet localize videos/holiday.mp4

    Exit codes: 0 success, 1 error (reported on one line), 2 invalid options, 130 interrupted by Ctrl-C.
    Colors are used only on a terminal, and never if NO_COLOR is set.
    """
    configure_output(ctx, quiet=quiet, verbose=verbose)


@soundspot.command()
@click.argument("path", type=click.Path(path_type=Path))
def verify(path: Path) -> None:
    """Verify the checksums and the layout of a shard or of stored features, or of all such files below a folder.

    The result is printed for every file; the exit code is 1 if any is damaged or cannot be read.

    Example: soundspot verify data/demo/shards
    """
    from pipeline.common.errors import AccessError, FeatureError, ShardError
    from pipeline.common.project import FEATURES_PATTERN, SHARD_PATTERN
    from pipeline.features.store import verify_features
    from pipeline.shards.reader import verify_shard, verify_split

    if not path.exists():
        raise ShardError(f"{path}: no such file or folder; pass a shard or a folder of shards")
    patterns = (SHARD_PATTERN, FEATURES_PATTERN)
    shards = sorted(file for each in patterns for file in path.rglob(each)) if path.is_dir() else [path]
    if not shards:
        raise ShardError(f"{path}: contains no shards ({SHARD_PATTERN}); run `dvc repro extract`")
    damaged = 0
    for shard in shards:
        try:
            verify_features(shard) if shard.match(FEATURES_PATTERN) else verify_shard(shard)
        except AccessError as error:
            damaged += 1
            echo(f"unknown: {error}", err=True)
        except (FeatureError, ShardError) as error:
            damaged += 1
            echo(f"damaged: {error}", err=True)
        else:
            echo(f"good: {shard}")
    if damaged:
        raise ShardError(f"{path}: {damaged} of {len(shards)} files are damaged or cannot be read; see above")
    # A single file says nothing about its siblings, so missing shards are only detected for folders.
    folders = {shard.parent for shard in shards if not shard.match(FEATURES_PATTERN)}
    for folder in sorted(folders) if path.is_dir() else ():
        verify_split(folder)


def main() -> None:
    """Run the command line of this process; the entry point of the installed `soundspot`."""
    run_command(soundspot)


if __name__ == "__main__":
    main()
