"""The result of a preflight check, as data and as text.

Sizes are bytes, times wall-clock s on this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pipeline.common.errors import SoundspotError
from pipeline.common.text_table import Table
from pipeline.datasets.prepare import SplitCoverage

T = TypeVar("T")


@dataclass(frozen=True)
class Output:
    """Files of one kind that the pipeline will write.

    Attributes
    ----------
    what : str
        Kind of file.
    folder : str
        Relative to the project.
    count : int
    size : int
        Total of all files.
    """

    what: str
    folder: str
    count: int
    size: int


@dataclass(frozen=True)
class StageTime:
    """Estimated duration of one stage, s.

    Attributes
    ----------
    stage : str
    epochs : int
        Of all seeds together.
    epoch_seconds : float
        Training only; 0 for a variant that reuses the weights of another one.
    label_seconds : float
        One pass over the training set that writes pseudo-labels.
    total_seconds : float
        All epochs and label passes of all seeds.
    """

    stage: str
    epochs: int
    epoch_seconds: float
    label_seconds: float
    total_seconds: float


@dataclass
class Preflight:
    """The result of a preflight check. Fields stay empty if the checks did not get that far.

    Attributes
    ----------
    dataset, device : str
    problems : list of str
        What would stop a stage, each with what to do.
    notes : list of str
    clips : dict of str to SplitCoverage
        By split: clips listed, and clips whose media exist or will be rendered.
    outputs : list of Output
    disk_needed, disk_free : int
        Still to be written, and free in the project's file system.
    times : list of StageTime
    memory_needed, memory_available : int
        Measured peak of a training stage (0 if it was not measured), and what the device offers.
    """

    dataset: str
    device: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    clips: dict[str, SplitCoverage] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    disk_needed: int = 0
    disk_free: int = 0
    times: list[StageTime] = field(default_factory=list)
    memory_needed: int = 0
    memory_available: int = 0

    def attempt(self, action: Callable[[], T]) -> T | None:
        """Run something that a stage will run. Return its result; on an error record the problem and return None."""
        try:
            return action()
        except SoundspotError as error:
            problem = " ".join(str(error).split())
            if problem not in self.problems:  # several stages can stop for one reason
                self.problems.append(problem)
            return None

    def n_found(self, split: str) -> int:
        """Return how many clips of a split have their media."""
        return self.clips[split].found if split in self.clips else 0

    def as_json(self) -> dict[str, Any]:
        """Return all fields as JSON-like values, plus ``can_run``."""
        return {"can_run": not self.problems, **asdict(self)}

    def text(self) -> str:
        """Return everything except the problems as text for a terminal."""
        notes = "".join(f"note: {note}\n" for note in self.notes)
        return "".join(
            f"{part}\n" for part in (_clips(self), _outputs(self), _times(self), _memory(self), notes) if part
        )


def _clips(preflight: Preflight) -> str:
    rows = [(name, str(count.listed), str(count.found)) for name, count in preflight.clips.items()]
    return Table(("clips", "listed", "found"), tuple(rows)).text() if rows else ""


def _outputs(preflight: Preflight) -> str:
    if not preflight.outputs:
        return ""
    rows = [(o.folder, o.what, str(o.count), human_bytes(o.size)) for o in preflight.outputs]
    total = (
        "total",
        "",
        str(sum(o.count for o in preflight.outputs)),
        human_bytes(sum(o.size for o in preflight.outputs)),
    )
    table = Table(("folder", "files", "count", "size"), (*rows, total)).text()
    return (
        f"{table}disk: {human_bytes(preflight.disk_needed)} still to write, {human_bytes(preflight.disk_free)} free\n"
    )


def _times(preflight: Preflight) -> str:
    if not preflight.times:
        return ""
    rows = [
        (
            time.stage,
            str(time.epochs or ""),
            human_seconds(time.epoch_seconds) if time.epoch_seconds else "",
            human_seconds(time.label_seconds) if time.epochs else "",
            human_seconds(time.total_seconds),
        )
        for time in preflight.times
    ]
    total = ("total", "", "", "", human_seconds(sum(time.total_seconds for time in preflight.times)))
    table = Table((f"time on {preflight.device}", "epochs", "per epoch", "label pass", "total"), (*rows, total)).text()
    return f"{table}Rendering and extraction are not included.\n"


def _memory(preflight: Preflight) -> str:
    if not preflight.memory_needed:
        return ""
    needed, available = human_bytes(preflight.memory_needed), human_bytes(preflight.memory_available)
    return f"memory on {preflight.device}: peak of training {needed}, {available} available\n"


def human_bytes(size: float) -> str:
    """Return a size in decimal units, such as ``1.5 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def human_seconds(seconds: float) -> str:
    """Return a duration such as ``42 s``, ``3.5 min``, ``7.0 h`` or ``2.1 d``."""
    for unit, length, limit in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 86400)):
        if seconds < limit:
            return f"{seconds / length:.{0 if unit == 's' and seconds >= 10 else 1}f} {unit}"
    return f"{seconds / 86400:.1f} d"
