"""Commands that only look at results start without the libraries that take seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pipeline.shards.reader import ShardSet
from tests.cli.test_evaluate import PARAMS
from tests.cli.test_scores import ciou
from tests.support.labeled_runs import make_run, make_train_shards
from tests.support.made_results import write_content_free, write_row

HEAVY = ["torch", "librosa", "dask", "matplotlib", "scipy", "sklearn", "av", "dvc"]
OF_NUMBERS = ["numpy", "h5py", "pydantic"]
# One process for all commands, because starting one takes most of the time.
MAIN = """
import json, sys
from pipeline.cli.main import soundspot
commands, heavy = json.loads(sys.argv[1])
for command in commands:
    soundspot.main(command.split(), standalone_mode=False)
    print(json.dumps([command, [name for name in heavy if name in sys.modules]]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(PARAMS)
    shards = ShardSet.open(make_train_shards(folder / "data/squares/shards/train"))
    make_run(folder / "runs/squares/good", shards=shards.fingerprint)
    results = folder / "results/squares"
    write_row(results / "good", ciou(0.3), shuffled=ciou(0.2))
    write_content_free(results)
    return folder


def imported(folder, commands, heavy):
    """Return which of the modules are loaded after each command."""
    arguments = [sys.executable, "-c", MAIN, json.dumps([commands, heavy])]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stderr.splitlines()))


def test_help_imports_no_library_of_numbers(project):
    commands = ["--help", "pl --help", "pl show --help", "train --help", "localize --help", "scores --help"]
    assert imported(project, commands, HEAVY + OF_NUMBERS) == {command: [] for command in commands}


def test_reading_results_imports_no_heavy_library(project):
    commands = ["protocols", "scores", "scores --all", "pl list good", "pl show good clip-03 --no-image"]
    commands += ["pl compare good 0 2", "pl neighbors good clip-03", "pl histogram good"]
    assert imported(project, commands, HEAVY) == {command: [] for command in commands}
