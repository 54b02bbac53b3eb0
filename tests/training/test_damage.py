"""Damaged files of every kind: what is read equals the intact file, or an error of one line names the file."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import pytest
import torch

from pipeline.common.errors import CheckpointError, SoundspotError
from pipeline.training.checkpoints import read_checkpoint, write_checkpoint
from tests.support.fuzz_targets import Target, hdf5_targets, weight_targets
from tests.support.mutations import mutate, mutate_weights

N = 24  # files per target; the fuzz script tries more


def state_of(path):
    return {name: value.numpy().tobytes() for name, value in read_checkpoint(path).items() if torch.is_tensor(value)}


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact")
    write_checkpoint(folder / "state.pt", {"model.a": torch.randn(40, 30), "optimizer.0.step": torch.tensor(3.0)})
    state = Target("state", (folder / "state.pt").read_bytes(), "state.pt", state_of, True, (), mutate_weights)
    return {each.name: each for each in (*hdf5_targets(folder), *weight_targets(folder), state)}


def read(target, folder, content):
    path = folder / target.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return target.read(path)


def write_others(target, folder):
    for name, intact in target.others:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(intact)


def error_of(target, folder, content):
    """Return the message of the error, which names the file in one line; None if it equals what the intact file gives."""
    try:
        result = read(target, folder, content)
    except SoundspotError as error:
        return str(error)
    assert result == read(target, folder, target.content)
    return None


NAMES = ["shard", "compact shard", "pseudo-labels", "maps", "model", "state", "pretrained weights, zip"]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_bytes_give_the_same_values_or_an_error(targets, tmp_path, name):
    target, rng = targets[name], np.random.default_rng(1)
    write_others(target, tmp_path)
    errors = [error_of(target, tmp_path, mutate(target.content, rng)) for _ in range(N)]
    found = [error for error in errors if error is not None]
    assert len(found) > N // 2
    assert all(str(tmp_path / target.file) in error and "\n" not in error for error in found)


@pytest.mark.parametrize("name", [*NAMES, "pretrained weights, legacy"])
def test_what_another_program_changed_is_an_error(targets, tmp_path, name):
    """Values, attributes and structure changed through h5py, with its checksums right again; and NaN and infinite weights."""
    target, rng = targets[name], np.random.default_rng(2)
    write_others(target, tmp_path)
    for _ in range(N // 2 if target.rewrite is mutate_weights else 2 * N):
        error = error_of(target, tmp_path, target.rewrite(target.content, rng))
        assert str(tmp_path / target.file) in error
        assert "\n" not in error


@pytest.mark.parametrize("name", ["pl verify, epoch_001.h5", "pl verify, start_001.h5"])
def test_verify_goes_on_and_fails(targets, tmp_path, name):
    target, rng = targets[name], np.random.default_rng(3)
    write_others(target, tmp_path)
    read(target, tmp_path, target.content)
    for damage in (mutate, target.rewrite) * (N // 4):
        with pytest.raises(SoundspotError, match="problem"):
            read(target, tmp_path, damage(target.content, rng))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 617, -1])
def test_one_value_that_is_not_finite_is_enough(tmp_path, value, place):
    weights = torch.zeros(1200)
    weights[place] = value
    write_checkpoint(tmp_path / "model.pt", {"model.fine": torch.ones(3), "model.broken": weights})
    with pytest.raises(CheckpointError, match=r"model\.pt: 'model\.broken'.*finite"):
        read_checkpoint(tmp_path / "model.pt")


def test_every_bit_of_the_zips_directory(tmp_path):
    """It is not covered by the checksums. One bit per part makes torch return uninitialized memory."""
    path = tmp_path / "model.pt"
    write_checkpoint(path, {"model.a": torch.arange(5.0), "model.b": torch.ones(3)})
    content, intact = path.read_bytes(), state_of(path)
    entries = [match.start() for match in re.finditer(rb"PK\x01\x02.{42}archive/data/", content, re.DOTALL)]
    assert len(entries) == 2
    for place in range(entries[0], entries[1]):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with suppress(CheckpointError):
                assert state_of(path) == intact, (place, bit)
