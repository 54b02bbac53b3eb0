"""Extract a clip list into shards of decoded clips on Dask, one task per shard.

Unusable clips are listed in ``rejects.csv`` (columns ``clip_id, reason``) and are never replaced by other clips. The
split fails if too many clips are unusable or if the folder cannot be written.

``shards.json`` is written last and marks a finished split. A rerun keeps every shard whose clips, settings and code (that of the
import closure) are unchanged, so that clips added at the end of the list are extracted without those before them. A finished shard is
trusted if its stamp is unchanged (`pipeline.shards.stamps`), and read otherwise. Shards with rejects are rebuilt if the split
failed because of too many rejects, or if the media root or the time limit changed. A shard's bytes depend only on its clips and the
settings, not on the number of workers or the location of the media.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.cluster import run_tasks
from pipeline.common.code import code_digest
from pipeline.common.config import EXACT, AudioSettings, ShardEncoding
from pipeline.common.console import report
from pipeline.common.errors import ClusterError, ExtractionError
from pipeline.common.files import locked, storing, write_csv
from pipeline.common.project import shard_path, stage_name
from pipeline.extraction.build_shard import FinishedShard, ShardTask, build_shard
from pipeline.extraction.keep import PARTIAL_REJECTS_FILE, keep_shards
from pipeline.extraction.plan import plan_shards
from pipeline.shards.listing import write_shard_list
from pipeline.shards.reader import REJECTS_FILE, read_rejects
from pipeline.shards.stamps import Entry, add_entry, how_checked

CODE = "pipeline.extraction.extract"  # where the code of this stage starts


@dataclass(frozen=True)
class ExtractionSummary:
    """Counts of a finished extraction.

    Attributes
    ----------
    n_clips : int
        Clips stored in the shards.
    n_rejected : int
        Clips listed in rejects.csv.
    n_shards : int
        Shards of the split.
    n_kept : int
        Shards kept from an earlier, unfinished run.
    """

    n_clips: int
    n_rejected: int
    n_shards: int
    n_kept: int


def extract_split(
    clips: Path,
    split: str,
    *,
    media_root: Path,
    folder: Path,
    audio: AudioSettings,
    image_size: int,
    clips_per_shard: int,
    max_reject_fraction: float,
    clip_time_limit_s: float,
    scheduler: str | None,
    workers: int | None,
    media: str = "",
    encoding: ShardEncoding = EXACT,
    fresh: bool = False,
    verify: bool = False,
) -> ExtractionSummary:
    """Decode a split's clips into shards.

    Parameters
    ----------
    clips : Path
        ``clips.csv`` of the dataset, see `pipeline.manifests.prepared`; the order of its rows is kept. Memory does not grow with it,
        except for 8 bytes per clip and the reasons of rejected clips.
    split : str
        The split to extract.
    media_root : Path
        Folder that the clips' paths are relative to. With a scheduler, workers must have access to it, to `clips` and to `folder`.
    folder : Path
        Output folder for the shards, shards.json and rejects.csv; created if absent.
    audio : AudioSettings
        Log-mel settings.
    image_size : int > 0
        Side of the stored frame, pixels.
    clips_per_shard : int > 0
    max_reject_fraction : float in [0, 1]
        Stop as soon as more than this fraction of the split is unusable.
    clip_time_limit_s : float > 0
        Time limit for one clip in seconds, after which it is rejected.
    scheduler, workers
        See `pipeline.common.cluster.run_tasks`.
    media : str
        Fingerprint of generated media, so that shards of different media are not kept; empty for other media.
    encoding : ShardEncoding
        How shards store frames and log-mels; by default, exactly.
    fresh : bool
        Extract everything again, even if nothing changed.
    verify : bool
        Verify the checksums of all finished shards, even if their stamps are unchanged.

    Raises
    ------
    ManifestError
        The list has no clips of the split, a clip id is repeated, or a path leaves the media root.
    ExtractionError
        Too many clips are unusable (they are listed in rejects.partial.csv), the folder cannot be written or another
        process is writing to it, or a worker process died. Finished shards are kept, and the next run resumes from them.
    ClusterError
        The Dask scheduler cannot be reached.
    """
    # Workers of an external cluster have a different working directory.
    clips, media_root, folder = clips.absolute(), media_root.absolute(), folder.absolute()
    # All rows are checked before any work: a path that leaves the media root is a mistake in the list, not an unusable clip.
    tasks = [
        ShardTask(shard_path(folder, index), *part, media_root, audio, image_size, media, clip_time_limit_s, encoding)
        for index, part in enumerate(plan_shards(clips, split, clips_per_shard))
    ]
    n_clips = sum(task.clips.n_clips for task in tasks)
    digests: dict[str, str] = {}
    rejects: dict[int, Mapping[str, str]] = {}
    n_kept = n_seen = n_rejected = 0
    with ExitStack() as stack:
        with storing(folder, ExtractionError):
            stack.enter_context(locked(folder, ExtractionError))
            trusted, n_unverified = keep_shards(folder, tasks, code=code_digest(CODE), fresh=fresh, verify=verify)
        for index, shard in stack.enter_context(closing(_finish_all(tasks, trusted, scheduler, workers))):
            digests[tasks[index].path.name] = shard.digest
            rejects[index] = shard.rejects
            n_kept += shard.kept
            n_seen += tasks[index].clips.n_clips
            n_rejected += len(shard.rejects)
            # A split without a single usable clip is an error under any limit.
            if n_rejected > max_reject_fraction * n_clips or n_rejected == n_clips:
                rows = _write_rejects(folder / PARTIAL_REJECTS_FILE, rejects)
                raise ExtractionError(_too_many(rows, n_seen, n_clips, max_reject_fraction, folder))
        _write_rejects(folder / REJECTS_FILE, rejects)
        with storing(folder, ExtractionError):
            write_shard_list(folder, {task.path.name: digests[task.path.name] for task in tasks})
    n_before = len(trusted) + n_unverified
    if n_kept == len(tasks):
        report(
            f"extract {folder.name}: {n_kept} shards unchanged, {how_checked(len(trusted), n_kept)}, kept; to extract again: "
            f"SOUNDSPOT_FRESH=1 dvc repro -f -s {stage_name('extract', folder)}"
        )
    elif n_kept < n_before:
        report(f"extract {folder.name}: {n_before - n_kept} shards were damaged and have been extracted again")
    return ExtractionSummary(n_clips - n_rejected, n_rejected, len(tasks), n_kept)


def _finish_all(
    tasks: Sequence[ShardTask], trusted: Mapping[str, Entry], scheduler: str | None, workers: int | None
) -> Generator[tuple[int, FinishedShard], None, None]:
    """Yield the index of each task and its shard: first those that need no work, then the others as they are completed."""
    pending: list[int] = []
    for index, task in enumerate(tasks):
        entry = trusted.get(task.path.name)
        if entry is None:
            pending.append(index)
            continue
        rejects = dict(read_rejects(task.path)) if entry.n_rejects else {}
        yield index, FinishedShard(True, entry.digest, entry.stamp, rejects)
    folder = tasks[0].path.parent
    arguments = [(tasks[index],) for index in pending]
    try:
        for position, shard in run_tasks(
            build_shard, arguments, scheduler=scheduler, workers=workers, label=f"extract {folder.name}"
        ):
            task = tasks[pending[position]]
            entry = Entry(task.path.name, task.fingerprint, shard.digest, shard.stamp, len(shard.rejects))
            with storing(folder, ExtractionError):
                add_entry(folder, entry)
            yield pending[position], shard
    except ClusterError as error:
        if error.task is None:
            raise
        task = tasks[pending[error.task]]
        clips = task.clips.read()
        raise ExtractionError(
            f"{task.path}: the worker process died repeatedly on this shard (clips {clips[0].clip_id!r} to "
            f"{clips[-1].clip_id!r}): out of memory, or a decoder crashed. Use fewer workers, or remove the clip "
            "from the list. Finished shards are kept"
        ) from None


def _write_rejects(path: Path, rejects: Mapping[int, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Write the rejects of each shard, by its number, in the order of the clip list; return the rows."""
    rows = [row for index in sorted(rejects) for row in rejects[index].items()]
    with storing(path, ExtractionError):
        write_csv(path, ("clip_id", "reason"), rows)
    return rows


def _too_many(rows: Sequence[tuple[str, str]], n_seen: int, n_clips: int, limit: float, folder: Path) -> str:
    commonest = Counter(_kind(reason) for _, reason in rows).most_common(3)
    listed = "; ".join(f"{count} x {reason}" for reason, count in commonest)
    return (
        f"{folder.name}: {len(rows)} of the {n_seen} clips processed are unusable ({n_clips} in the split, limit "
        f"{limit:.0%}): {listed}. They are listed in {folder / PARTIAL_REJECTS_FILE}. Check the media root, fix the "
        "clip list, or raise extract.max_reject_fraction; shards without rejects are kept"
    )


def _kind(reason: str) -> str:
    """Return a reason without its leading file name, so that equal reasons are counted together."""
    return reason.split(": ", 1)[-1]
