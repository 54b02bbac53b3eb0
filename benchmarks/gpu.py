"""What a GPU computes, and how fast: parity with the CPU, resuming, and the speed of training with the paper's preset.

Parity: for each method, the loss, its gradient and the maps of the demo's encoders in float32, on the same batch and weights as on the CPU;
and how much the loss differs in the precision of training. Resuming: a run that is interrupted and resumed, there and on the CPU, against
an uninterrupted one; and the operations that torch reports as not deterministic. Speed: pairs per second of an epoch of Eq. 7, with batches
from shards, and with batches that are on the device already; the share of time spent waiting for batches; clips per second of the label
pass, and of its maps alone; memory; and the lines of a step at which the program waits for the device. On a GPU, all this with
deterministic algorithms, with the fastest ones, and compiled. All clips are noise.

    python benchmarks/gpu.py [--device cuda] [--net paper] [--clips 2880] [--passes 3] [--limit 240]
        [--output benchmarks/results/gpu.json]

With `--device cpu`, parity holds trivially. Of the packages in setup.cfg, it needs torch, h5py, numpy, pydantic, pyyaml, click, filelock and
tqdm; and for DSOL, scikit-learn. The result is written after each part. No part starts after `--limit` seconds. The exit code is 1 if
a check fails.
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import os
import platform
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from _parity import Result, parity, resuming, with_epochs
from training import AUDIO, write_shards

from pipeline.common.config import AudioSettings, TrainingSettings, load_params
from pipeline.common.console import be_silent
from pipeline.common.files import write_json
from pipeline.common.text_table import MISSING, Table
from pipeline.model.devices import algorithms, select_device
from pipeline.model.inference import inference
from pipeline.shards.reader import ShardSet
from pipeline.training.history import Waited
from pipeline.training.live import steps as end_of_epoch
from pipeline.training.live.steps import EpochSteps
from pipeline.training.loop import label_training_set, train_epoch
from pipeline.training.run import TrainingRun
from pipeline.training.spec import train_specs
from pipeline.training.state import TrainingState, start
from pipeline.training.train import initialize

# Block of params.yaml, pixels per side, and audio: the demo's, and five seconds as for the paper's datasets.
NETS = {
    "demo": ("demo", 128, AUDIO),
    "paper": (
        "soundnet_flickr",
        256,
        AudioSettings(sample_rate=16_000, clip_seconds=5.0, n_fft=640, hop_length=320, n_mels=64),
    ),
}
ON_CPU = ("parity", "resuming", "speed")
PARTS = (*ON_CPU, "speed, fastest algorithms", "speed, fastest algorithms, compiled")
KEPT = 8  # batches on the device
# Largest relative differences. Float32 rounds to 1e-7, and sums in another order add to it; a threshold that one clip crosses shows in the
# gradient first. Half precision: as in the tests on a CPU. No GPU has been measured yet.
TOLERANCES = {"loss": 1e-4, "gradient": 1e-2, "maps": 1e-3, "half_loss": 2e-2, "resumed": 1e-2}


def prepare(settings: TrainingSettings, folder: Path, net: str, clips: int, device: torch.device) -> None:
    """Write shards, and train an initial model on them."""
    _, image_size, audio = NETS[net]
    write_shards(folder / "shards", clips, image_size=image_size, audio=audio)
    begin = {"initialize": settings.initialize.model_copy(update={"epochs": 1})}
    settings = settings.model_copy(update=begin)
    initialize(
        ShardSet.open(folder / "shards"), folder / "initialize", settings=settings, seeds=[0], device=str(device)
    )


def speed(
    settings: TrainingSettings, folder: Path, device: torch.device, passes: int, *, deterministic: bool, compiled: bool
) -> Result:
    """Time epochs of Eq. 7, and label passes."""
    shards = ShardSet.open(folder / "shards")
    (spec,) = train_specs(
        shards, folder / "initialize", folder / "run", method="iterative", settings=settings, seeds=[0]
    )
    run = TrainingRun(spec, shards, device, compiled=compiled)
    with algorithms(device, deterministic=deterministic):
        state = start(run)
        timings = [one_pass(run, state, epoch) for epoch in range(1, passes + 2)]
        waiting = waits(run, state) if device.type == "cuda" else []
    # The first is a warm-up.
    median = {name: statistics.median(each[name] for each in timings[1:]) for name in timings[0]}
    return {
        "pairs_per_second_from_shards": run.n_pairs / median["shards"],
        "pairs_per_second_on_device": run.n_pairs / median["device"],
        "ratio_of_times": median["shards"] / median["device"],
        "data_wait_fraction": median["waiting"] / median["shards"],
        "labeled_clips_per_second": len(shards) / median["labels"],
        "mapped_clips_per_second_on_device": run.n_pairs / median["maps"],
        "gigabytes_of_tensors": median["peak"] / 1e9,
        "waits_for_device": waiting,
    }


def one_pass(run: TrainingRun, state: TrainingState, epoch: int) -> dict[str, float]:
    """Return the seconds of each part of one epoch, and the peak of memory while it trains from shards."""
    stride = state.model.cell_stride
    waited = Waited(run.batches(epoch, cell_stride=stride, labels=state.labels))
    reset_peak(run.device)
    from_shards = timed(run.device, lambda: train_epoch(run, state, waited, steps()))
    most = peak(run.device)  # before batches are kept on the device
    kept = list(islice(run.batches(epoch, cell_stride=stride, labels=state.labels), KEPT))
    again = list(islice(cycle(kept), run.n_steps))

    def maps() -> None:
        state.model.eval()
        with inference("tf32"):
            for batch in again:
                run.method.localize(state.model, batch.frames, batch.log_mel)

    return {
        "shards": from_shards,
        "peak": float(most),
        "waiting": waited.seconds,
        "device": timed(run.device, lambda: train_epoch(run, state, again, steps())),
        "labels": timed(run.device, lambda: label_training_set(run, state, epoch)),
        "maps": timed(run.device, maps),
    }


def steps() -> EpochSteps:
    """Return what collects the losses of an epoch."""
    return EpochSteps("benchmark", kept="")


def waits(run: TrainingRun, state: TrainingState) -> list[str]:
    """Return the lines of three steps at which the program waits for the device, with how often; not those that read the losses at the end of an epoch."""
    batches = islice(run.batches(1, cell_stride=state.model.cell_stride, labels=state.labels), 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train_epoch(run, state, batches, steps())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [(Path(each.filename).name, each.lineno) for each in caught if "synchroniz" in str(each.message)]
    lines = [f"{file}:{line}" for file, line in found if file != Path(end_of_epoch.__file__).name]
    return [f"{line} ({lines.count(line)})" for line in sorted(set(lines))]


def timed(device: torch.device, function: Any) -> float:
    """Return the seconds that a function takes, until the device is done."""
    synchronize(device)
    begun = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - begun


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Forget the peak of memory so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int:
    """Return the peak of the memory of tensors, in bytes; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def failed(result: Result, names: Sequence[str] = ON_CPU) -> list[str]:
    """Return the checks that fail. A value that is not a number fails, and so does a part that has not run."""
    parts = {name: result.get(name, {"error": "not run"}) for name in names}
    rows = parts | {f"parity of {name}": row for name, row in parts["parity"].items() if name != "error"}
    errors = [f"{name}: {row['error']}" for name, row in rows.items() if "error" in row]
    return errors + [
        f"{name}: {key} {row[key]:.1e}, at most {limit:g} expected"
        for name, row in rows.items()
        for key, limit in TOLERANCES.items()
        if key in row and not row[key] <= limit
    ]


def show(name: str, found: Result) -> None:
    """Print one part."""
    if name == "parity" and "error" not in found:
        columns = ("loss", "gradient", "maps", "half_loss")
        rows = [
            (method, *(f"{row[each]:.1e}" if each in row else MISSING for each in columns))
            for method, row in found.items()
        ]
        print(Table(("relative difference", *columns), tuple(rows)).text(), flush=True)
        return
    for key, value in found.items():
        print(f"{key:<36}{value:>12.5g}" if isinstance(value, float) else f"{key:<36}{value}", flush=True)


def machine(device: torch.device) -> Result:
    """Return what was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    threads = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    return {"device": name, **threads, "torch": torch.__version__, "cuda": torch.version.cuda}


def main() -> None:
    """Run the parts, print them, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--net", choices=NETS, default="paper", help="the one whose speed is measured")
    parser.add_argument("--clips", type=int, default=2880)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--limit", type=float, default=240, help="seconds after which no part starts")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu.json"))
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    be_silent()
    begun, device = time.perf_counter(), select_device(arguments.device)
    training = load_params(arguments.params).training
    block = NETS[arguments.net][0]
    result = machine(device) | {name: getattr(arguments, name) for name in ("net", "clips", "passes")}

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        settings = with_epochs(training[block], arguments.passes + 1)

        def timed_epochs(*, deterministic: bool = True, compiled: bool = False) -> Result:
            if not (folder / "shards").exists():
                prepare(settings, folder, arguments.net, arguments.clips, device)
            return speed(settings, folder, device, arguments.passes, deterministic=deterministic, compiled=compiled)

        functions: tuple[Callable[[], Result], ...] = (
            lambda: parity(training["demo"], folder / "parity", device),
            lambda: resuming(training["demo"], folder / "resuming", device),
            timed_epochs,
            lambda: timed_epochs(deterministic=False),
            lambda: timed_epochs(deterministic=False, compiled=True),
        )
        parts = PARTS if device.type == "cuda" else ON_CPU
        for name, function in zip(parts, functions, strict=False):
            so_far = time.perf_counter() - begun
            print(f"\n{name}, after {so_far:.0f} s" + (": not run" if so_far > arguments.limit else ""), flush=True)
            if so_far <= arguments.limit:
                try:
                    result[name] = function()
                except Exception as error:  # the other parts still tell something
                    traceback.print_exc()
                    result[name] = {"error": f"{type(error).__name__}: {error}"}
                show(name, result[name])
                write_json(arguments.output, result)

    found = failed(result, parts)
    print("\n" + ("\n".join(found) or f"all checks hold, {time.perf_counter() - begun:.0f} s"))
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
