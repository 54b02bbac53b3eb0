"""Projects in temporary folders on which the pipeline runs as it does for users, with settings small enough for a test."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DVC = [sys.executable, "-m", "dvc"]


def shrunk(training: dict[str, Any], *, batch_size: int, width: int = 4, epochs: int = 1) -> dict[str, Any]:
    """Return a block of `training` with encoders that train in seconds; `epochs` is for `iterate`."""
    small = copy.deepcopy(training)
    for name in ("visual", "audio"):
        small["encoder"][name] |= {"width": width, "blocks": [1, 1, 1, 1], "weights": None}
    small["encoder"] |= {"embedding_dim": 16}
    small["initialize"]["epochs"], small["iterate"]["epochs"] = 1, epochs
    return small | {"batch_size": batch_size}


def copy_project(folder: Path) -> None:
    """Copy what `dvc repro` requires, except settings and data, and initialize Git and DVC."""
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "live", folder / "live", ignore=lambda path, names: {*names} - {"metrics", "runs", ".gitignore"}
    )
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run([*DVC, "init", "-q"], cwd=folder, check=True)
    subprocess.run([*DVC, "config", "core.analytics", "false"], cwd=folder, check=True)


def environment() -> dict[str, str]:
    # The stages run `python`, which must be this one, and the project's copy, not the installed package.
    # One worker makes one shard after the other, so that a kill can fall between two.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "SOUNDSPOT_WORKERS": "1"}


def repro(folder: Path, *arguments: str) -> list[str]:
    """Run `dvc repro` and return the names of the stages that ran."""
    done = subprocess.run(
        [*DVC, "repro", *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]


def kill_when(folder: Path, there: Path, *arguments: str) -> None:
    """Start `dvc repro`, and kill it with all its children as soon as a file is there."""
    process = subprocess.Popen(
        [*DVC, "repro", *arguments],
        cwd=folder,
        env=environment() | {"SOUNDSPOT_FRESH": "1"},  # otherwise the stage restores its output from DVC's cache
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 600
    while not there.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert process.poll() is None, "the pipeline ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_params(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "params.yaml").read_text())


def write_params(folder: Path, params: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def set_param(folder: Path, key: str, value: object) -> None:
    """Change one setting of the project; `key` has a point between the names of blocks."""
    params = read_params(folder)
    *parents, last = key.split(".")
    block = params
    for parent in parents:
        block = block[parent]
    block[last] = value
    write_params(folder, params)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every shard, pseudo-label file, model, list of shards and list of rejects below a folder."""
    names = ("*.h5", "*.pt", "shards.json", "rejects.csv")
    files = sorted(path for name in names for path in folder.rglob(name))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
