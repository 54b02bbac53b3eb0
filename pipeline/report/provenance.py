"""Where a report comes from: the version and commit of the code, the data, the settings of the training, and what it took.

All values come from the run, from Git and from this machine, and none from the clock, so a report that is written again from the same
run has the same bytes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import pipeline
from pipeline.common.errors import CheckpointError
from pipeline.common.project import MODEL_FILE, TIMINGS_FILE, seed_folder
from pipeline.common.reading import parse_json
from pipeline.common.tables import read_records
from pipeline.common.text_table import counted
from pipeline.evaluation.labels import label_of
from pipeline.report.source import Source
from pipeline.training.checkpoints import read_checkpoint

GIT_SECONDS = 20
# Changes to other files, such as dvc.lock, do not change what a report shows.
CODE = ("pipeline", "stages", "params.yaml")


def provenance(source: Source) -> list[tuple[str, str]]:
    """Return names and values for the footer. What cannot be found out is left out."""
    run = seed_folder(source.runs / source.shown, source.seeds, source.seed)
    model = read_checkpoint(run / MODEL_FILE, mmap=True)
    parameters = sum(value.numel() for value in _tensors(model))
    facts = [
        (
            "Report written by",
            " ".join(part for part in (f"soundspot {pipeline.__version__}", _commit(Path.cwd())) if part),
        ),
        (
            "Data",
            f"{source.manifest.name}: {len(source.train_shards):,} training clips, shards {source.train_shards.fingerprint[:8]}",
        ),
        ("Model shown", f"{label_of(source.shown)}, seed {source.seed}, {parameters:,} parameters"),
        ("Trained", _training(run)),
        ("Settings", _settings(model)),
        ("Report written on", _machine()),
    ]
    return [(name, value) for name, value in facts if value]


def _tensors(content: Any) -> list[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        return [content]
    return [each for value in content.values() for each in _tensors(value)] if isinstance(content, Mapping) else []


def _commit(folder: Path) -> str:
    commit = _git(folder, "rev-parse", "--short=10", "HEAD")
    if not commit:
        return ""
    changed = _git(folder, "status", "--porcelain", "--", *CODE)
    return f"(commit {commit}{', with uncommitted changes' if changed else ''})"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _training(run: Path) -> str:
    """Return how long the epochs of a run took. Files have no date that survives `dvc checkout` or a copy."""
    path = run / TIMINGS_FILE
    if not path.is_file():
        return ""
    seconds = [float(row["seconds"]) for row in read_records(path, CheckpointError)]
    return f"{counted(len(seconds), 'epoch')} in {_duration(sum(seconds))}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _settings(model: Mapping[str, Any]) -> str:
    values = parse_json(model["iteration"], MODEL_FILE, CheckpointError)
    shown = {name: value for name, value in values.items() if isinstance(value, (int, float, str))}
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in shown.items())


def _machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return f"{platform.system()} {platform.machine()}, {device}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def _processor() -> str:
    try:
        names = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        names = None
    return names[1].strip() if names else platform.processor() or "CPU"
