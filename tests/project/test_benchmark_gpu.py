"""benchmarks/gpu.py on a CPU: it starts with few packages, finds differences, and goes on after an error."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline.common.config import load_params
from pipeline.shards.reader import ShardSet
from tests.support.projects import ROOT

# Packages of the project that a machine with a GPU may lack.
HEAVY = {
    "av",
    "dask",
    "distributed",
    "dvc",
    "jinja2",
    "librosa",
    "matplotlib",
    "psutil",
    "sklearn",
    "soxr",
    "torchaudio",
}


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


@pytest.fixture
def compare(gpu, tmp_path):
    """Compare a method with itself, on 24 clips of the demo's size."""
    parity = importlib.import_module("_parity")
    settings = load_params(ROOT / "params.yaml").training["demo"]
    parity.write_shards(tmp_path, parity.SMALL, image_size=32)
    shards = ShardSet.open(tmp_path)
    labels = parity.labels_of(shards, settings, tmp_path / "epoch.h5")
    return lambda name: parity.compare(name, 1, settings, shards, labels, torch.device("cpu"))


def test_it_needs_few_packages():
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import gpu; print(*{n.partition('.')[0] for n in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "h5py"} <= set(done.stdout.split())
    assert not HEAVY & set(done.stdout.split())


def test_a_device_that_computes_something_else_is_found(gpu, compare, monkeypatch):
    assert compare("iterative") == {"loss": 0, "gradient": 0, "maps": 0}
    parity = importlib.import_module("_parity")
    right, calls = parity.gradient, []

    def two_percent_off(*arguments):
        values = right(*arguments)
        calls.append(1)
        return {**values, "gradient": values["gradient"] * 1.02} if len(calls) == 2 else values

    monkeypatch.setattr(parity, "gradient", two_percent_off)
    row = compare("iterative")
    assert row["gradient"] == pytest.approx(0.02, rel=1e-3)
    (text,) = gpu.failed({"parity": {"iterative": row}, "resuming": {}, "speed": {}})
    assert "iterative" in text
    assert "gradient" in text


def test_differences(gpu):
    difference = importlib.import_module("_parity").difference
    assert difference(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert difference(np.array([np.nan]), np.array([1.0])) == np.inf


def test_what_fails(gpu):
    good = {"parity": {"itr": {"loss": 1e-6}}, "resuming": {"resumed": 0.0}, "speed": {"ratio_of_times": 9.0}}
    assert gpu.failed(good) == []
    assert len(gpu.failed(good | {"resuming": {"resumed": float("nan")}})) == 1
    assert len(gpu.failed(good | {"parity": {"itr": {"error": "no kernel"}, "dmc": {"loss": 1.0}}})) == 2
    assert gpu.failed({name: good[name] for name in ("parity", "speed")}) == ["resuming: not run"]


def test_an_error_in_one_part_leaves_the_others(gpu, monkeypatch, tmp_path, capsys):
    def broken(*_, **__):
        raise RuntimeError("out of order")

    for name in ("parity", "speed"):
        monkeypatch.setattr(gpu, name, broken)
    monkeypatch.setattr(gpu, "prepare", lambda *_: None)
    monkeypatch.setattr(gpu, "resuming", lambda *_: {"resumed": 0.0})
    monkeypatch.setattr(gpu, "be_silent", lambda: None)
    output = tmp_path / "gpu.json"
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--device", "cpu", "--net", "demo", "--clips", "4", "--output", str(output)]
    )
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with pytest.raises(SystemExit) as end:
        gpu.main()
    assert end.value.code == 1
    result = json.loads(output.read_text())
    assert "out of order" in result["parity"]["error"]
    assert "out of order" in result["speed"]["error"]
    assert result["resuming"] == {"resumed": 0.0}
    assert "out of order" in capsys.readouterr().out
