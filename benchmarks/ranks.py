"""Speed of training in several processes, against one process with as many threads.

The nets, batch size and augmentation are the demo's from params.yaml, the objective is Eq. 3, and the clips are noise. Runs of both kinds
alternate; the first epoch of each is a warm-up, and the median of all others is reported. On a CPU, several processes share its threads,
so this shows what the messages between them cost, not what another device would gain.

    python benchmarks/ranks.py [--clips 1024] [--processes 2] [--epochs 4] [--rounds 2] [--output benchmarks/results/ranks.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import csv
import os
import platform
import statistics
import tempfile
from pathlib import Path

import torch
from training import write_shards

from pipeline.common.config import TrainingSettings, load_params
from pipeline.common.files import write_json
from pipeline.common.project import HISTORY_FILE, TIMINGS_FILE
from pipeline.shards.reader import ShardSet
from pipeline.training.train import Execution, initialize


def measure(
    settings: TrainingSettings, folder: Path, *, clips: int, processes: int, epochs: int, rounds: int
) -> dict[str, object]:
    """Return the medians, and how much the losses of the last epochs differ."""
    write_shards(folder / "shards", clips)
    shards = ShardSet.open(folder / "shards")
    settings = settings.model_copy(update={"initialize": settings.initialize.model_copy(update={"epochs": epochs})})
    speeds: dict[int, list[float]] = {1: [], processes: []}
    losses: dict[int, float] = {}
    for number in range(rounds):
        for n in speeds:
            run = folder / f"run_{number}_{n}"
            initialize(shards, run, settings=settings, seeds=[0], device="cpu", execution=Execution(n_processes=n))
            speeds[n] += [float(row["pairs_per_second"]) for row in read_rows(run / TIMINGS_FILE)[1:]]
            losses[n] = float(read_rows(run / HISTORY_FILE)[-1]["loss"])
    one, several = (statistics.median(values) for values in speeds.values())
    return {
        "pairs_per_second_one_process": round(one, 1),
        "pairs_per_second_several": round(several, 1),
        "ratio_of_speeds": round(several / one, 3),
        "relative_difference_of_losses": abs(losses[processes] / losses[1] - 1),
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file of a run."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=1024)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4, help="of each run; at least 2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/ranks.json"))
    arguments = parser.parse_args()

    settings = load_params(arguments.params).training["demo"]
    taken = {name: getattr(arguments, name) for name in ("clips", "processes", "epochs", "rounds")}
    with tempfile.TemporaryDirectory() as folder:
        result = measure(settings, Path(folder), **taken)

    for name, value in result.items():
        print(f"{name:<32}{value:>10.4g}")
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine()}
    write_json(arguments.output, {**taken, **machine, "torch": torch.__version__, **result})


if __name__ == "__main__":
    main()
