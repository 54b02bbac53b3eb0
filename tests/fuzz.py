"""Feed damaged files to every reader of the project: ``python -m tests.fuzz --seconds 60``.

Each case takes an intact file of `tests.support.fuzz_targets`, damages it, and reads it. The reader must return a result or raise
`SoundspotError` with a one-line message. Another exception, a crash, a hang, or a result other than that of the intact file
although the format has checksums, is a failure. The cases depend on the seed alone; ``--case N`` repeats one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import math
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np

HANG_S = 30.0  # a reader that takes longer hangs; the time limit for decoding is 10 s
METHOD = "spawn"  # a forked process could inherit the locks of threads


@click.command()
@click.option("--seconds", type=float, default=60.0, show_default=True, help="How long to run, without the start.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--only", default="", help="Only targets whose name contains this text.")
@click.option("--case", type=int, help="Only this case, in this process, with its traceback.")
@click.option("--keep", type=click.Path(path_type=Path), help="Save the files that fail in this folder.")
def main(seconds: float, seed: int, only: str, case: int | None, keep: Path | None) -> None:
    """Damage files at random and read them."""
    if case is not None:
        with tempfile.TemporaryDirectory() as folder:
            click.echo(Cases(Path(folder), seed, only).run(case, keep, show=True))
        return
    counts, failures = fuzz(seconds, seed=seed, only=only, keep=keep)
    for failure in failures:
        click.echo(failure)
    click.echo(
        f"{sum(counts.values())} files: {counts['read']} read, {counts['rejected']} rejected, {len(failures)} failures"
    )
    sys.exit(bool(failures))


def fuzz(seconds: float, *, seed: int = 0, only: str = "", keep: Path | None = None) -> tuple[Counter[str], list[str]]:
    """Run cases for some time, in a process of their own that is replaced when it crashes or hangs.

    Returns
    -------
    counts : Counter
        Number of cases by outcome: ``read``, ``rejected``, ``failed``.
    failures : list of str
        One line per failure, with the number of its case.
    """
    context = multiprocessing.get_context(METHOD)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    end, first = math.inf, 0
    while time.monotonic() < end:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, first, seed, only, keep))
        process.start()
        theirs.close()
        case, ready = first, False
        try:
            ready = ours.recv()
            end = min(end, time.monotonic() + seconds)  # without the time to make the intact files
            while time.monotonic() < end and ours.poll(HANG_S):
                case, outcome, message = ours.recv()
                counts[outcome] += 1
                if outcome == "failed":
                    failures.append(f"case {case}: {message}")
                case += 1
            if time.monotonic() < end:
                failures.append(f"case {case}: hangs")
        except EOFError:
            process.join()
            if not ready:
                raise RuntimeError("the intact files cannot be made or read") from None
            failures.append(f"case {case}: the process ended with exit code {process.exitcode}")
        finally:
            ours.close()  # ends the process at its next result
            process.join(HANG_S if time.monotonic() >= end else 0)
            process.kill()
            process.join()
        first = case + 1
    return counts, failures


def _work(results: Connection, first: int, seed: int, only: str, keep: Path | None) -> None:
    faulthandler.enable()
    os.environ["TQDM_DISABLE"] = "1"  # no notes
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(Path(folder), seed, only)
        results.send(True)
        with contextlib.suppress(BrokenPipeError):
            for case in itertools.count(first):
                results.send((case, *cases.run(case, keep)))


class Cases:
    """Intact files in a folder, and the results of reading them."""

    def __init__(self, folder: Path, seed: int, only: str) -> None:
        # Imported here, so that the process that supervises starts fast.
        from tests.support.fuzz_targets import make_targets

        self._folder, self._seed = folder, seed
        intact = folder / "intact"
        intact.mkdir(exist_ok=True)
        self._targets = [target for target in make_targets(intact) if only in target.name]
        if not self._targets:
            raise click.UsageError(f"no target's name contains {only!r}")
        self._expected: dict[str, Any] = {}
        for number, target in enumerate(self._targets):
            self._expected[target.name] = target.read(self._write(target, target.content, f"intact-{number}"))

    def run(self, case: int, keep: Path | None, *, show: bool = False) -> tuple[str, str]:
        """Run a case; return its outcome and, if it failed, a line that describes the failure."""
        from pipeline.common.errors import SoundspotError
        from tests.support.mutations import mutate

        target, rng = self._targets[case % len(self._targets)], np.random.default_rng([self._seed, case])
        rewritten = target.rewrite is not None and rng.integers(2) == 1
        content = (target.rewrite if rewritten else mutate)(target.content, rng)
        path = self._write(target, content, "case")
        try:
            result = target.read(path)
            if target.check and not rewritten and result != self._expected[target.name]:
                raise AssertionError("read without an error, with other values than the intact file")
        except SoundspotError as error:
            if "\n" not in str(error) and "internal error" not in str(error):
                return "rejected", ""
            message = f"{target.name}: not a useful line: {error!r}"
        except BaseException as error:  # a failure is whatever is no SoundspotError
            if show:
                traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{target.name}: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        else:
            return "read", ""
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"case-{case}-{path.name}").write_bytes(content)
        return "failed", " ".join(message.split())[:500]

    def _write(self, target: Any, content: bytes, name: str) -> Path:
        folder = self._folder / name
        for other, intact in target.others:
            (folder / other).parent.mkdir(parents=True, exist_ok=True)
            (folder / other).write_bytes(intact)
        path: Path = folder / target.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


if __name__ == "__main__":
    main()
