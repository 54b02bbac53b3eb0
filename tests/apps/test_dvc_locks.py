"""Locks that killed DVC commands leave: found, removed on request, and never taken from a running command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.apps.preflight import environment as doctor
from pipeline.apps.preflight.dvc_locks import left_locks
from pipeline.cli.main import soundspot
from tests.support.projects import DVC, ROOT


@pytest.fixture
def rwlock(tmp_path):
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def entry(pid: int) -> dict[str, object]:
    return {"pid": pid, "cmd": "dvc repro"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"write": {',
        "[]",
        "7",
        '{"write": {"runs": {"pid": 7}}}',
        '{"read": {"runs": {"pid": 7}}}',
        "\x00",
        "[" * 100_000,
    ],
)
def test_an_empty_or_damaged_lock_is_found(rwlock, tmp_path, content):
    rwlock.write_text(content)
    ((path, reason),) = left_locks(tmp_path)
    assert path == rwlock
    assert "damaged" in reason


def test_an_entry_blocks_if_another_program_has_its_process_number(rwlock, tmp_path):
    for mode in ("read", "write"):
        user = entry(os.getpid())
        rwlock.write_text(json.dumps({mode: {"runs": [user] if mode == "read" else user}}))
        assert list(left_locks(tmp_path)) == []  # this process may have written it, with DVC as a library
        os.utime(rwlock, (1, 1))  # before this process started
        ((_, reason),) = left_locks(tmp_path)
        assert str(os.getpid()) in reason


def test_what_does_not_block_is_left_alone(rwlock, tmp_path):
    assert list(left_locks(tmp_path)) == []
    user = entry(dead_pid())  # DVC drops it
    for content in ({}, {"read": {}, "write": {}}, {"read": {"data": [user]}, "write": {"runs": user}}):
        rwlock.write_text(json.dumps(content))
        assert list(left_locks(tmp_path)) == []
    (tmp_path / ".dvc/tmp/lock").write_text(f" {user['pid']}\n")  # the operating system has released it
    assert list(left_locks(tmp_path)) == []


def test_a_lock_that_is_a_hard_link_is_found(rwlock, tmp_path):
    lock = tmp_path / ".dvc/tmp/lock"
    lock.write_text("")
    os.link(lock, tmp_path / ".dvc/tmp/claim.lock")
    assert [path for path, _ in left_locks(tmp_path)] == [lock]


def test_another_program_with_the_word_dvc_is_no_dvc_command(rwlock, tmp_path):
    rwlock.write_text("")
    with subprocess.Popen(["grep", "dvc"], cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert len(list(left_locks(tmp_path))) == 1
        process.communicate()


def test_locks_of_a_running_command_are_left_alone(rwlock, tmp_path):
    rwlock.write_text("")
    (tmp_path / "below").mkdir()
    command = [sys.executable, "-c", "print(flush=True); input()", "dvc", "repro"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path / "below", **pipes) as process:
        process.stdout.readline()
        assert list(left_locks(tmp_path)) == []
        process.communicate("\n")
    assert len(list(left_locks(tmp_path))) == 1


@pytest.mark.slow
def test_dvc_works_again_after_the_fix(tmp_path, monkeypatch):
    def dvc(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*DVC, *words], cwd=tmp_path, capture_output=True, text=True, check=False)

    def findings(*options: str) -> list[dict[str, str]]:
        output = CliRunner().invoke(soundspot, ["doctor", "--json", *options]).output
        return [finding for finding in json.loads(output) if finding["topic"] == "dvc"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_TEST", "true")  # otherwise, DVC reports its use in a process that outlives the command
    for probe in ("_packages", "_torchaudio", "_codecs", "_device", "_workers"):
        monkeypatch.setattr(doctor, probe, lambda: iter(()))
    assert dvc("init", "--no-scm", "-q").returncode == 0
    Path("dvc.yaml").write_text("stages: {one: {cmd: echo 1 > out, outs: [out]}}")
    rwlock = Path(".dvc/tmp/rwlock")
    rwlock.parent.mkdir(exist_ok=True)
    for content, message in (
        ("", "Unable to read RWLock-file '.dvc/tmp/rwlock'. JSON structure is corrupted"),
        ('{"write": {"out": {"pid": 1}}}', "RWLock-file '.dvc/tmp/rwlock' format error."),
    ):
        rwlock.write_text(content)
        assert message in dvc("repro").stderr
        assert message in (ROOT / "docs/troubleshooting.md").read_text()
        (finding,) = findings()
        assert (finding["state"], finding["hint"]) == ("bad", "run `soundspot doctor --fix`, which removes it")
        assert rwlock.exists()
    removed, status = findings("--fix")
    assert removed["text"].startswith("removed .dvc/tmp/rwlock")
    assert status["state"] == "note"
    assert dvc("repro").returncode == 0
    assert [finding["state"] for finding in findings()] == ["good"]
