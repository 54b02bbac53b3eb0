"""The fuzz script: no damaged file of any kind gets past the readers in twenty seconds, and the script itself notices what it must."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.common.errors import MediaError
from tests import fuzz
from tests.support import fuzz_targets
from tests.support.fuzz_targets import Target


@pytest.mark.slow
def test_damaged_files(tmp_path):
    counts, failures = fuzz.fuzz(20, keep=tmp_path)
    assert failures == []
    assert min(counts["read"], counts["rejected"]) > 100


@pytest.fixture
def outcome_of(tmp_path, monkeypatch):
    """Return a function that runs one case with a given reader."""

    def run(read, **options):
        target = Target("toy", bytes(range(64)), "toy.bin", read, **options)
        monkeypatch.setattr(fuzz_targets, "make_targets", lambda folder: [target])
        return fuzz.Cases(tmp_path, seed=0, only="").run(1, keep=None)

    return run


def intact(path: Path) -> bool:
    return path.read_bytes() == bytes(range(64))


def rejects(message):
    def read(path):
        if not intact(path):
            raise MediaError(message)

    return read


def test_a_result_and_a_clear_rejection_are_fine(outcome_of):
    assert outcome_of(lambda path: None)[0] == "read"
    assert outcome_of(rejects("toy.bin: damaged"))[0] == "rejected"


@pytest.mark.parametrize("message", ["two\nlines", "internal error: IndexError"])
def test_a_rejection_that_helps_nobody_is_a_failure(outcome_of, message):
    assert outcome_of(rejects(message))[0] == "failed"


def test_another_exception_is_a_failure_with_its_place(outcome_of):
    outcome, message = outcome_of(lambda path: None if intact(path) else {}["missing"])
    assert outcome == "failed"
    assert "KeyError" in message
    assert "test_fuzz.py" in message


def test_other_values_are_a_failure_if_the_format_has_checksums(outcome_of):
    assert outcome_of(Path.read_bytes)[0] == "read"
    assert outcome_of(Path.read_bytes, check=True)[0] == "failed"


def _die_on_damage(path: Path) -> None:
    if not intact(path):
        os._exit(3)


def _toys(folder: Path) -> list[Target]:
    return [Target("toy", bytes(range(64)), "toy.bin", _die_on_damage)]


def test_a_crash_is_a_failure_and_does_not_end_the_run(monkeypatch):
    monkeypatch.setattr(fuzz_targets, "make_targets", _toys)
    monkeypatch.setattr(fuzz, "METHOD", "fork")  # so that the process inherits the patch
    _, failures = fuzz.fuzz(1.5)
    assert len(failures) > 1
    assert "exit code 3" in failures[0]
