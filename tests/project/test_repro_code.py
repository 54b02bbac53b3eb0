"""A change of code trains again exactly what that code trained, whatever DVC starts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.projects import DVC, digests, environment, repro

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test may wait for the prepared project


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: {old!r}"
    path.write_text(text.replace(old, new))


def times(folder: Path) -> dict[Path, int]:
    """Return the time of modification of every file of the runs and the shards, for which training and extraction take hours."""
    return {path: path.stat().st_mtime_ns for name in ("*.h5", "*.pt", "history.csv") for path in folder.rglob(name)}


def test_a_new_method_other_methods_and_comments_train_nobody_again(project):
    before, stamps = digests(project), times(project / "runs") | times(project / "data/demo/shards")
    code = project / "pipeline"
    (code / "methods/best_cell.py").write_text('"""A new method."""\n\nBEST = 1\n')
    entry = '    "best_cell": MethodSpec("pipeline.methods.best_cell:BestCell", "best cell"),\n'
    edit(code / "methods/registry.py", '    "dmc": ', f'{entry}    "dmc": ')
    edit(code / "methods/attention.py", "import torch\n", "import torch\n\nANOTHER = 1\n")
    for module in ("training/loop.py", "extraction/extract.py", "common/files.py"):
        (code / module).write_text((code / module).read_text() + "# A comment.\n")

    ran = repro(project, "train")

    assert {"extract@demo-train", "initialize@demo", "train@demo-iterative"} <= set(
        ran
    )  # DVC sees that folders have changed
    assert digests(project) == before
    assert stamps == times(project / "runs") | times(project / "data/demo/shards")


def test_an_edit_of_an_equation_trains_again(project):
    before = digests(project)
    edit(project / "pipeline/model/equations.py", "- numerator).mean()", "- numerator).mean() * 1.5")

    done = subprocess.run(
        [*DVC, "repro", "train@demo-iterative"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert "training from scratch: the code of this stage changed" in done.stderr
    after = digests(project)
    changed = {path for path in before if after[path] != before[path]}
    assert "runs/demo/iterative/model.pt" in changed
    # Eq. 3 is in the same module: the initialization is trained again as well, and comes out the same.
    assert all(path.startswith("runs/demo/iterative/") for path in changed)


def test_fresh_forces_a_stage(project, monkeypatch):
    before, path = digests(project), project / "runs/demo/iterative/model.pt"
    stamp = path.stat().st_mtime_ns
    forced = ["--force", "--single-item", "train@demo-iterative"]
    assert repro(project, *forced) == ["train@demo-iterative"]
    assert path.stat().st_mtime_ns == stamp
    monkeypatch.setitem(os.environ, "SOUNDSPOT_FRESH", "1")
    assert repro(project, *forced) == ["train@demo-iterative"]
    assert path.stat().st_mtime_ns > stamp
    assert digests(project) == before
