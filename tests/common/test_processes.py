"""Temporary folders: removed at the end, after a kill at the next start, and never those of others."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.common.processes import interrupts_deferred, scratch_folder

HOLD = """
from pipeline.common.processes import scratch_folder
with scratch_folder() as folder:
    (folder / "worker").mkdir()
    print(folder, flush=True)
    input()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_is_removed_at_the_end(temporary):
    with scratch_folder() as folder, scratch_folder() as other:
        assert {folder, other} <= set(temporary.iterdir())
        (folder / "file").touch()
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_at_the_next_start(temporary):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        held = Path(process.stdout.readline().strip())
        with scratch_folder():
            assert (held / "worker").is_dir()  # of a running process
        process.kill()
    assert held.is_dir()
    with scratch_folder() as folder:
        assert list(temporary.iterdir()) == [folder]


def test_folders_of_others_are_left_alone(temporary):
    for name in ("soundspot-demo", "soundspot-scratch-new"):
        (temporary / name).mkdir()
    (temporary / "soundspot-demo/.lock").touch()
    (temporary / "target").mkdir()
    (temporary / "target/.lock").touch()
    (temporary / "soundspot-scratch-link").symlink_to("target")
    before = set(temporary.rglob("*"))
    with scratch_folder():
        pass
    assert set(temporary.rglob("*")) == before


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs POSIX signals")
def test_ctrl_c_takes_effect_after_the_block():
    codes = []

    def block() -> None:
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
            command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"]
            codes.append(subprocess.run(command, check=False).returncode)

    # Tests that run in the background of a shell start with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            block()
    finally:
        signal.signal(signal.SIGINT, before)
    assert codes == [0]  # a process that is started in the block does not see it
