"""Which shards of an earlier run are kept, and why the others are removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.common.console import report
from pipeline.common.errors import ShardError
from pipeline.common.files import fingerprint, remove_leftovers, write_text
from pipeline.common.project import SHARD_PATTERN
from pipeline.common.record import changed_code, read_record, write_record
from pipeline.extraction.build_shard import ShardTask
from pipeline.shards.listing import SHARDS_FILE, read_shard_list
from pipeline.shards.reader import REJECTS_FILE, read_rejects, read_shard_fingerprint, shard_digest
from pipeline.shards.stamps import Entry, file_stamps, read_entries, write_entries

PARTIAL_REJECTS_FILE = "rejects.partial.csv"
CONDITIONS_FILE = ".conditions"  # DVC ignores it


def keep_shards(
    folder: Path, tasks: Sequence[ShardTask], *, code: str, fresh: bool, verify: bool
) -> tuple[dict[str, Entry], int]:
    """Remove what cannot be kept from the folder of a split, and report why.

    Parameters
    ----------
    folder : Path
        Created if absent; the caller has locked it.
    tasks : sequence of ShardTask
        One for each shard of the split.
    code : str
        Digest of the code.
    fresh : bool
        Keep nothing.
    verify : bool
        Trust no stamp.

    Returns
    -------
    trusted : dict
        Finished shards whose stamp is unchanged, by file name.
    n_unverified : int
        Number of other shards that stay. Their checksums must be verified before they count as finished.
    """
    folder.mkdir(parents=True, exist_ok=True)
    everything = "SOUNDSPOT_FRESH is set" if fresh else changed_code(read_record(folder), code)
    conditions_path, partial = folder / CONDITIONS_FILE, folder / PARTIAL_REJECTS_FILE
    # What may make a rejected clip usable. Not in the record, because it belongs to the machine.
    conditions = fingerprint([str(tasks[0].media_root), tasks[0].clip_time_limit_s])
    retry = partial.exists() or (conditions_path.is_file() and conditions_path.read_text() != conditions)
    expected = {task.path: task for task in tasks}
    entries, digests = read_entries(folder), _digests(folder)
    stamps = {} if everything or verify else file_stamps(path for path in expected if path.name in entries)
    trusted: dict[str, Entry] = {}
    removed: Counter[str] = Counter()
    n_unverified = 0
    for path in sorted(folder.glob(SHARD_PATTERN)):
        entry = entries.get(path.name)
        known = entry if entry is not None and entry.stamp == stamps.get(path) else None
        # The list first: entries stay on the machine when DVC checks out other shards. An interrupted run has entries only.
        digest = digests.get(path.name) or (entry.digest if entry else "")
        reason = everything or _why_removed(path, expected.get(path), known, digest, retry=retry)
        if reason:
            removed[reason] += 1
            path.unlink()
        elif known:
            trusted[path.name] = known
        else:
            n_unverified += 1
    for reason, count in removed.items():
        report(f"extract {folder.name}: removed {count} shards: {reason}")
    remove_leftovers(folder)
    # The list is deleted last: a split without it counts as unfinished.
    for path in (partial, folder / REJECTS_FILE, folder / SHARDS_FILE):
        path.unlink(missing_ok=True)
    write_text(conditions_path, conditions)
    write_entries(folder, trusted.values())
    write_record(folder, code=code)
    return trusted, n_unverified


def _digests(folder: Path) -> dict[str, str]:
    with suppress(ShardError):
        return read_shard_list(folder)
    return {}


def _why_removed(path: Path, task: ShardTask | None, known: Entry | None, digest: str, *, retry: bool) -> str:
    """Return why a shard cannot be kept, or an empty string. `known` is its entry if the file is unchanged since then."""
    try:
        found = known.fingerprint if known else read_shard_fingerprint(path)
        if task is None or found != task.fingerprint:
            return "the clip list or the settings changed"
        if not known and digest and shard_digest(path) != digest:
            return "they were modified after they had been extracted"
        if retry and (known.n_rejects if known else read_rejects(path)):
            return "their rejected clips may be usable now"
    except ShardError:
        return "they are damaged"
    return ""
