"""Every benchmark runs, at a size at which its figures mean nothing; `make bench` measures."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest

from pipeline.shards.reader import ShardSet
from tests.support.projects import ROOT

NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_what_it_takes(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as for a script, which may take from those beside it
    main = importlib.import_module(f"benchmarks.{name}").main
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "--output" in capsys.readouterr().out


# These run in test_benchmark_localization.py and tests/extraction/test_extraction_memory.py.
ELSEWHERE = {"localization", "extraction_memory"}
SMALL = {
    "evaluation": ("--clips", "64", "--repeats", "1"),
    "extraction": ("--files", "1", "--passes", "1"),
    "features": ("--clips", "8", "--passes", "1"),
    "gpu": ("--device", "cpu", "--net", "demo", "--clips", "128", "--passes", "1", "--limit", "1000"),
    "reading": ("--clips", "300", "--image-size", "64", "--repeats", "1"),
    "ranks": ("--clips", "64", "--epochs", "2", "--rounds", "1"),
    "scale": ("--clips", "10", "1000", "--sample", "4"),
    "scoring": ("--clips", "100", "--repeats", "1"),
    "training": ("--clips", "128", "--passes", "1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs_to_its_end(name, tmp_path):
    output = tmp_path / "result.json"
    command = [sys.executable, f"benchmarks/{name}.py", *SMALL[name], "--output", str(output)]
    # One Dask worker is enough; each imports torch.
    alone = os.environ | {"SOUNDSPOT_WORKERS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)  # 1: a target is missed, which says nothing at this size
    assert json.loads(output.read_text())
    assert done.stdout


def test_make_bench_runs_them():
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("BENCHMARKS :="))
    assert sorted(line.split(":=")[1].split()) == sorted(SMALL.keys() - {"gpu"} | ELSEWHERE)


def test_the_shards_of_noise_belong_together(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    write_shards = importlib.import_module("benchmarks.training").write_shards
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards", 5, clips_per_shard=2)
    assert len(ShardSet.open(tmp_path / "shards")) == 5
