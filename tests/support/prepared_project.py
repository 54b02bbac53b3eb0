"""A small project after a complete `dvc repro`, created once per test session; each test gets a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.datasets.demo.dataset import write_manifest
from tests.support.projects import ROOT, copy_project, read_params, repro, shrunk, write_params

TRAIN, VALIDATION, TEST = 48, 4, 16  # number of clips
EPOCHS = 4
SIZE = 64  # pixels
N_SHARDS = 3  # of the training split
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]


def make_project(folder: Path) -> None:
    """Create the project with a small demo dataset and narrow encoders, commit it, and run every stage."""
    folder.mkdir()
    copy_project(folder)
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots", dirs_exist_ok=True)
    params = read_params(ROOT)
    training = {
        "demo": shrunk(params["training"]["demo"], batch_size=8, epochs=EPOCHS),
        # Imports and `soundspot train` copy these blocks.
        "soundnet_flickr": shrunk(params["training"]["soundnet_flickr"], batch_size=4, epochs=2),
        "real": _one_epoch(params["training"]["real"]),
    }
    extract = params["extract"] | {"clips_per_shard": TRAIN // N_SHARDS}
    write_params(folder, params | {"variants": ["iterative"], "training": training, "extract": extract})
    write_manifest(folder / "data_manifests" / "demo", seed=3, train=TRAIN, validation=VALIDATION, test=TEST)
    card = folder / "data_manifests" / "demo" / "dataset.yaml"
    card.write_text(card.read_text().replace("image_size: 128", f"image_size: {SIZE}"))
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    subprocess.run([*GIT, "commit", "-q", "-m", "start"], cwd=folder, check=True)
    repro(folder)


def _one_epoch(training: dict[str, Any]) -> dict[str, Any]:
    return training | {part: training[part] | {"epochs": 1} for part in ("initialize", "iterate")}


def made_once(base: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Create a folder, unless another process of this test run already has; `base` is the session's temporary folder."""
    # With xdist, each worker has its own folder inside the session's folder.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / f"{name}.lock"):
        if not (shared / name).exists():
            unfinished = shared / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(shared / name)
    return shared / name
