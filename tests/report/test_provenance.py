"""The footer of the report: commit, data, training and settings, from the run and from Git."""

from __future__ import annotations

import os
import subprocess

import pytest

import pipeline
from pipeline.report.provenance import provenance
from tests.support.page_world import make_source


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def source(tmp_path, monkeypatch):
    source = make_source(tmp_path / "world")
    run = source.runs / "iterative"
    (run / "timings.csv").write_text("epoch,seconds\n1,100.5\n2,200\n")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    # Without this, a repository above the temporary folder would be found.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return source


def test_the_footer_names_code_data_training_and_settings(source, tmp_path):
    facts = dict(provenance(source))
    assert facts["Report written by"] == f"soundspot {pipeline.__version__}"
    assert facts["Data"].startswith("manifest: 9 training clips, shards ")
    assert facts["Trained"] == "2 epochs in 5 min"
    assert "seed 0" in facts["Model shown"]
    assert "delta_v" in facts["Settings"]
    assert "torch" in facts["Report written on"]
    (source.runs / "iterative" / "timings.csv").unlink()
    assert "Trained" not in dict(provenance(source))


def test_the_date_of_a_file_does_not_change_the_footer(source):
    before = provenance(source)
    os.utime(source.runs / "iterative" / "model.pt", (86_400 * 365, 86_400 * 365))
    assert provenance(source) == before


def test_the_commit_is_named_and_changes_to_code_too(source, tmp_path):
    project = tmp_path / "project"
    git(project, "init", "-q")
    (project / "params.yaml").write_text("a: 1\n")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    (project / "dvc.lock").write_text("written by a run")
    commit = git(project, "rev-parse", "--short=10", "HEAD")
    assert dict(provenance(source))["Report written by"].endswith(f"(commit {commit})")
    (project / "params.yaml").write_text("a: 2\n")
    assert dict(provenance(source))["Report written by"].endswith(f"(commit {commit}, with uncommitted changes)")
