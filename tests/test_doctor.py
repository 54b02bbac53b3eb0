"""`soundspot doctor`: what it finds here, and what it says when something is missing."""

from __future__ import annotations

import importlib.metadata
import json
import shutil

import pytest
from click.testing import CliRunner

from pipeline import doctor
from pipeline.cli import soundspot
from tests.projects import ROOT


@pytest.fixture
def quick(monkeypatch):
    """Leave out the probe that starts a process."""
    monkeypatch.setattr(doctor, "_workers", lambda: iter(()))


def by_topic(project):
    findings = {}
    for finding in doctor.examine(project):
        findings.setdefault(finding.topic, []).append(finding)
    return findings


@pytest.mark.slow
def test_this_machine_has_what_the_project_needs():
    done = CliRunner().invoke(soundspot, ["doctor", "--json"])
    findings = json.loads(done.output)
    assert [f for f in findings if f["state"] == "bad"] == []
    assert done.exit_code == 0
    topics = {f["topic"] for f in findings}
    assert {"python", "packages", "spectrograms", "media", "device", "workers", "project", "dvc", "disk"} <= topics
    packages = next(f["text"] for f in findings if f["topic"] == "packages")
    assert f"torch {importlib.metadata.version('torch')}" in packages


def test_a_folder_that_is_no_project(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path=None: "dvc")
    findings = by_topic(tmp_path)
    assert [f.state for f in findings["project"]] == ["note"]
    assert [f.state for f in findings["dvc"]] == ["note"]


def test_wrong_settings_are_named(tmp_path, quick):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (finding,) = by_topic(tmp_path)["project"]
    assert finding.state == "bad"
    assert "dataset.yaml: no such file" in finding.text
    assert finding.hint


def test_what_is_missing_is_bad_and_has_a_hint(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path=None: None)
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT", str(tmp_path / "nowhere"))
    findings = by_topic(tmp_path)
    assert [f.state for f in findings["dvc"]] == ["note", "bad"]
    assert "PATH" in findings["dvc"][0].text
    assert "names no folder" in findings["environment"][1].text
    bad = [f for each in findings.values() for f in each if f.state == "bad"]
    assert len(bad) == 2
    assert all(f.hint for f in bad)


def test_packages_outside_the_tested_range(monkeypatch):
    versions = {"torch": "1.0.0"}
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or real(name))
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: ["torch<2.14,>=2.8", "nothing-of-this-name", 'x; extra == "dev"']
    )
    notes = list(doctor._packages())
    assert [(f.state, f.text.split()[0]) for f in notes] == [
        ("note", "torch"), ("bad", "nothing-of-this-name"), ("good", "torch"),
    ]  # fmt: skip


def test_a_probe_that_breaks_is_a_finding(tmp_path, quick, monkeypatch):
    def broken():
        raise RuntimeError("libavcodec\nis not there")

    monkeypatch.setattr(doctor, "_codecs", broken)
    (finding,) = by_topic(tmp_path)["media"]
    assert (finding.state, finding.text) == ("bad", "RuntimeError: libavcodec is not there")


def test_a_dvc_that_does_not_answer_is_a_finding(tmp_path, quick, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    slow = tmp_path / "dvc"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path=None: str(slow))
    monkeypatch.setattr(doctor, "DVC_SECONDS", 0.2)
    (finding,) = by_topic(tmp_path)["dvc"]
    assert finding.state == "bad"
    assert "TimeoutExpired" in finding.text


def test_the_exit_code_and_the_marks(quick, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path=None: None)
    done = CliRunner().invoke(soundspot, ["doctor"])
    assert done.exit_code == 1
    assert "✗ dvc: the command dvc is not installed" in done.output
    assert "\x1b" not in done.output  # no colours where the output is not a terminal
