"""`soundspot train` on folders of small videos: one command from the folder to a model, resumed, and beside other datasets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.support.media_files import steady, write_media
from tests.support.projects import ROOT, copy_project, digests, environment, read_params, shrunk, write_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SOUNDSPOT = [sys.executable, "-m", "pipeline.cli.main"]
STAGES = ["prepare", "extract-train", "features-train", "initialize", "train-iterative", "extract-test"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without data, and two folders of ten videos."""
    copy_project(tmp_path)
    params = read_params(ROOT)
    blocks = {name: shrunk(params["training"][name], batch_size=64) for name in ("demo", "soundnet_flickr")}
    write_params(tmp_path, params | {"training": blocks})
    rng = np.random.default_rng(0)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        for number in range(10):
            hiss = rng.normal(scale=0.1, size=(1, 16_000)).astype(np.float32)
            write_media(tmp_path / folder / f"v{number}.mp4", times=steady(1, 10), sound=hiss)
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SOUNDSPOT, *arguments],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(folder)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *arguments: str) -> str:
    """Run a soundspot command and return what it printed."""
    process = start(folder, *arguments)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return printed


def train(folder: Path, name: str, *options: str) -> tuple[list[str], str]:
    """Run `soundspot train`; return the stages that ran, and what was printed."""
    printed = run(folder, "train", name, "--backbone", "small", *options)
    ran = [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")]
    return [stage.replace(f"@{name}-", "-").replace(f"@{name}", "") for stage in ran], printed


def locked(folder: Path) -> dict[str, object]:
    return yaml.safe_load((folder / "dvc.lock").read_text())["stages"]


def test_one_command_trains_resumes_and_keeps_other_datasets(project):
    stages, printed = train(project, "first", "--epochs", "1")
    assert sorted(stages) == sorted(STAGES)
    for path in ("runs/first/iterative/model.pt", "results/first/maps/iterative/calibration.json"):
        assert (project / path).is_file()
        assert path in printed
    first = locked(project)
    made = digests(project / "runs/first")
    *_, last = printed.splitlines()
    what, command = last.split(maxsplit=1)
    assert what == "next:"

    # The printed command localizes a held-out video with the new model.
    program, *words = command.split()
    assert program == "soundspot"
    assert "model: runs/first/iterative/model.pt" in run(project, *words)
    assert (project / "localized" / Path(words[-1]).name).is_file()

    # Once finished, nothing runs again.
    assert train(project, "first")[0] == []

    # Ctrl-C during training of another dataset; the same command goes on.
    process = start(project, "train", "second", "--backbone", "small", "--epochs", "60")
    epochs = project / "runs/second/initialize/history.csv"
    end = time.monotonic() + 600
    while (
        process.poll() is None
        and time.monotonic() < end
        and (not epochs.is_file() or epochs.read_text().count("\n") < 3)
    ):
        time.sleep(0.05)
    interrupt_group(process)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130, printed
    assert "run the same command again" in printed
    finished = epochs.read_text().splitlines()
    assert len(finished) < 60, "interrupted too late to show anything"
    set_epochs = read_params(project)["training"]["second"]
    assert set_epochs["initialize"]["epochs"] == 60

    stages, printed = train(project, "second")
    assert stages[0] == "initialize"
    assert epochs.read_text().splitlines()[: len(finished)] == finished

    # The first dataset has lost nothing.
    assert locked(project).items() > first.items()
    assert digests(project / "runs/first") == made
    assert train(project, "first")[0] == []


def interrupt_group(process: subprocess.Popen[str]) -> None:
    """Send what Ctrl-C sends: SIGINT to the command, DVC and the stage."""
    os.killpg(process.pid, signal.SIGINT)
