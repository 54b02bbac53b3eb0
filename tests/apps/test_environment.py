"""The environment check, `soundspot doctor`: what it finds here, and what it reports when something is missing."""

from __future__ import annotations

import importlib.metadata
import json
import shutil

import pytest
from click.testing import CliRunner

from pipeline.apps.preflight import environment as doctor
from pipeline.cli.main import soundspot
from pipeline.common.config import EncoderSettings, TimmSettings
from pipeline.common.errors import ClusterError, PackageError
from pipeline.model.backbones import torchvision_compat
from tests.support.projects import ROOT


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
    assert {"packages", "spectrograms", "media", "device", "workers", "project", "dvc", "disk"} <= topics
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
    assert "no such folder" in findings["environment"][1].text
    bad = [f for each in findings.values() for f in each if f.state == "bad"]
    assert len(bad) == 2
    assert all(f.hint for f in bad)


def test_the_media_root_of_one_dataset(tmp_path, quick, monkeypatch):
    monkeypatch.delenv("SOUNDSPOT_MEDIA_ROOT", raising=False)
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT_MINE", str(tmp_path / "nowhere"))
    told, finding = by_topic(tmp_path)["environment"]
    assert "SOUNDSPOT_MEDIA_ROOT_MINE=" in told.text
    assert (finding.state, finding.hint) == ("bad", "fix or unset SOUNDSPOT_MEDIA_ROOT_MINE")
    assert finding.text.startswith("SOUNDSPOT_MEDIA_ROOT_MINE: no such folder")


def test_packages_outside_the_tested_range(monkeypatch):
    versions = {"torch": "1.0.0"}
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or real(name))
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: ["torch<2.14,>=2.8", "nothing-of-this-name", 'x; extra == "dev"']
    )
    notes = list(doctor._packages())
    assert [(f.state, f.text.split()[0]) for f in notes] == [
        ("note", "torch"), ("bad", "nothing-of-this-name"), ("good", "Python"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("probe", "topic", "hint"),
    [
        ("_torchaudio", "spectrograms", "pip install -e '.[test]'"),
        ("_codecs", "media", "pip install -e '.[test]'"),
        ("_device", "device", "nvidia-smi"),
        ("_workers", "workers", "SOUNDSPOT_WORKERS"),
        ("_project", "project", "params.yaml"),
        ("_dvc", "dvc", "dvc doctor"),
        ("_disk", "disk", "TMPDIR"),
        ("_environment", "environment", "variables"),
    ],
)
def test_a_probe_that_breaks_is_a_finding_with_its_own_hint(tmp_path, monkeypatch, probe, topic, hint):
    def broken(*_):
        raise RuntimeError("something\nis not there")

    for name in ("_torchaudio", "_codecs", "_device", "_workers", "_project", "_dvc", "_disk", "_environment"):
        monkeypatch.setattr(doctor, name, broken if name == probe else lambda *_: iter(()))
    (finding,) = by_topic(tmp_path)[topic]
    assert (finding.state, finding.text) == ("bad", "RuntimeError: something is not there")
    assert hint in finding.hint


def test_a_scheduler_that_does_not_answer(monkeypatch):
    def unreachable(*_, **__):
        raise ClusterError("workers: no Dask scheduler answers at 'tcp://nowhere:1' (timed out)")
        yield

    monkeypatch.setattr("pipeline.common.cluster.run_tasks", unreachable)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://nowhere:1")
    (finding,) = doctor._workers()
    assert (finding.state, finding.hint) == (
        "bad", "start the scheduler and its workers, or unset DASK_SCHEDULER_ADDRESS"
    )  # fmt: skip
    assert finding.text.startswith("workers: no Dask scheduler answers at 'tcp://nowhere:1'")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS")
    (finding,) = doctor._workers()
    assert "SOUNDSPOT_WORKERS" in finding.hint


@pytest.fixture
def own_dvc(tmp_path, monkeypatch):
    """A project whose command dvc is a script, whose lines are given."""
    (tmp_path / ".dvc").mkdir()

    def write(lines):
        script = tmp_path / "dvc"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        monkeypatch.setattr(doctor.shutil, "which", lambda name, path=None: str(script))
        (finding,) = doctor._dvc(tmp_path, False)
        return finding

    return write


def test_a_dvc_that_does_not_answer_is_a_finding(own_dvc, monkeypatch):
    monkeypatch.setattr(doctor, "DVC_SECONDS", 0.2)
    finding = own_dvc("exec sleep 30")
    assert finding.state == "bad"
    assert "0.2 s" in finding.text
    assert "other DVC command" in finding.hint


@pytest.mark.parametrize(
    "message",
    [
        "ERROR: Unable to acquire lock. Most likely another DVC process is running",
        "ERROR: 'runs/demo' is busy, it is being blocked by:\n  (PID 7): dvc repro",
        "WARNING: old\nERROR: failed to parse 'vars'",
        "'./dvc.lock' validation failed.",
    ],
)
def test_the_error_line_of_dvc_is_passed_on(own_dvc, message):
    finding = own_dvc(f"cat >&2 <<'END'\n{message}\nEND\nexit 255")
    assert finding.state == "bad"
    assert finding.text in message.splitlines()
    assert "WARNING" not in finding.text
    assert "dvc doctor" in finding.hint


@pytest.mark.parametrize(("code", "state"), [(0, "good"), (1, "note")])
def test_results_that_are_out_of_date_are_worth_a_note(own_dvc, code, state):
    finding = own_dvc(f"exit {code}")
    assert finding.state == state
    assert ("dvc repro" in finding.hint) == (code == 1)


def test_the_exit_code_and_the_marks(quick, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path=None: None)
    done = CliRunner().invoke(soundspot, ["doctor"])
    assert done.exit_code == 1
    assert "✗ dvc: the command dvc is not installed" in done.output
    assert "\x1b" not in done.output  # no colors where the output is not a terminal


def test_timm_is_looked_for_only_where_it_is_used(monkeypatch):
    ours = EncoderSettings()
    assert not list(doctor._backbones(ours))
    other = ours.model_copy(update={"audio": TimmSettings(backbone="timm:resnet18")})
    (finding,) = doctor._backbones(other)
    assert (finding.state, "timm:resnet18" in finding.text) == ("good", True)
    monkeypatch.setattr(torchvision_compat, "load_timm", _absent)
    (finding,) = doctor._backbones(other)
    assert (finding.state, finding.text) == ("bad", "no timm")


def _absent():
    raise PackageError("no timm")
