"""Whole runs in several ranks: against one process, killed, resumed with another number of ranks, and started by torchrun."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml

from pipeline.common.config import IterationSettings, OptimizationSettings
from pipeline.common.errors import ShardError, TrainingError
from pipeline.model.ranks import _own_device
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training.train import Execution, initialize, train
from tests.support.feature_world import write_shards
from tests.support.projects import ROOT
from tests.support.synthetic import ENCODER, MemoryShards, make_settings, make_world
from tests.training.test_training import digests, read_history

pytestmark = pytest.mark.slow  # each process imports torch


class FaultyShards(MemoryShards):
    """Shards whose reading once fails in the second of several ranks."""

    fault = ""  # "killed" or "damaged"
    reads = 0  # before the fault

    def read(self, indices):
        self.reads -= 1
        if self.reads < 0 and os.environ.get("RANK") == "1" and self.fault:
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ShardError("shard-00001.h5: damaged")
        return super().read(indices)


@pytest.fixture(scope="module")
def world():
    # 22 clips: two batches of 8 to train, and an incomplete one in the pass over all clips
    whole = make_world(22, size=32)[0]
    return FaultyShards(whole.frames, whole.log_mel)


@pytest.fixture(scope="module")
def settings():
    # With BatchNorm after it, the bias of a projection has no gradient but rounding errors. AdamW scales them up to whole steps, other ones
    # with each number of ranks.
    encoder = ENCODER.model_copy(update={"batch_norm": False})
    return make_settings(
        encoder=encoder,
        initialize=OptimizationSettings(epochs=1, temperature=0.1, learning_rate=1e-3, weight_decay=1e-4),
        iterate=IterationSettings(
            epochs=2, temperature=0.3, learning_rate=1e-3, weight_decay=1e-4, delta_v=0.7, delta_a=0.8
        ),
    )


@pytest.fixture(scope="module")
def initial(world, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("initial") / "initialize"
    initialize(world, folder, settings=settings, seeds=[0])
    return folder


@pytest.fixture(scope="module")
def in_two_ranks(world, settings, initial, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    train(world, initial, folder, method="iterative", settings=settings, seeds=[0], execution=Execution(n_processes=2))
    return folder


def assert_like(folder, expected, *, clip_ids):
    """Compare two runs up to rounding: losses, pseudo-labels in their order, and the files that there are."""
    assert digests(folder).keys() == digests(expected).keys()
    for row, wanted in zip(read_history(folder), read_history(expected), strict=True):
        assert {name: bool(value) for name, value in row.items()} == {
            name: bool(value) for name, value in wanted.items()
        }
        if wanted["loss"]:
            assert float(row["loss"]) == pytest.approx(float(wanted["loss"]), rel=1e-5)
    for path in sorted(expected.rglob("epoch_*.h5")):
        found, wanted = (PseudoLabels.open(each / path.relative_to(expected)) for each in (folder, expected))
        assert found.clip_ids == wanted.clip_ids == clip_ids
        for name in ("response_min", "response_max"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-5)
        # They are stored as float16.
        np.testing.assert_allclose(found.response, wanted.response, atol=1e-3)
        np.testing.assert_allclose(found.audio_embedding, wanted.audio_embedding, atol=1e-3)
        assert found.attrs == wanted.attrs


def test_a_run_in_two_ranks_is_that_of_one_process(world, settings, initial, in_two_ranks, tmp_path):
    train(world, initial, tmp_path / "run", method="iterative", settings=settings, seeds=[0])
    assert_like(in_two_ranks, tmp_path / "run", clip_ids=world.clip_ids)


def faulty(world, fault, reads):
    shards = FaultyShards(world.frames, world.log_mel)
    shards.fault, shards.reads = fault, reads
    return shards


@pytest.mark.timeout(300)
@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_killed_rank_ends_all_and_the_run_resumes(
    world, settings, initial, in_two_ranks, tmp_path, capfd, n_processes
):
    # It reads two batches to train and two to label per epoch, and dies in the second epoch.
    with pytest.raises(TrainingError, match=r"terminated unexpectedly.*Run the command again: it resumes"):
        train(
            faulty(world, "killed", 4), initial, tmp_path / "run", method="iterative", settings=settings, seeds=[0],
            execution=Execution(n_processes=2),
        )  # fmt: skip
    assert not multiprocessing.active_children()
    assert len(read_history(tmp_path / "run")) == 2
    capfd.readouterr()
    train(
        world,
        initial,
        tmp_path / "run",
        method="iterative",
        settings=settings,
        seeds=[0],
        execution=Execution(n_processes=n_processes),
    )
    assert "iterative, seed 0: resuming after epoch 1" in capfd.readouterr().err
    if n_processes == 2:
        assert digests(tmp_path / "run") == digests(in_two_ranks)
    else:
        assert_like(tmp_path / "run", in_two_ranks, clip_ids=world.clip_ids)


@pytest.mark.timeout(300)
def test_the_error_of_one_rank_is_the_error(world, settings, tmp_path, capfd):
    with pytest.raises(ShardError, match=r"shard-00001\.h5: damaged"):
        initialize(
            faulty(world, "damaged", 1),
            tmp_path / "run",
            settings=settings,
            seeds=[0],
            execution=Execution(n_processes=2),
        )
    assert "Traceback" not in capfd.readouterr().err
    assert not multiprocessing.active_children()


def test_what_cannot_be_shared_is_refused(world, settings, tmp_path):
    with pytest.raises(TrainingError, match=r"batch_size 8 .* 3 processes"):
        initialize(world, tmp_path / "run", settings=settings, seeds=[0], execution=Execution(n_processes=3))
    with pytest.raises(TrainingError, match="2 seeds at once, and 2 processes"):
        initialize(
            world, tmp_path / "run", settings=settings, seeds=[0, 1], execution=Execution(n_processes=2, n_parallel=2)
        )
    with pytest.raises(TrainingError, match="'cuda:1' cannot be used by several processes"):
        _own_device("cuda:1")
    assert not list(tmp_path.rglob("*.*"))


def test_one_of_several_processes_does_not_train_alone(world, settings, tmp_path, monkeypatch):
    """As in a program of the user that torchrun or SLURM starts several times: all would write into the same folder."""
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=r"(?s)started as one of several .*torchrun"):
        initialize(world, tmp_path / "run", settings=settings, seeds=[0])
    assert not list(tmp_path.rglob("*.*"))


def torchrun(folder, *arguments):
    """Run the stage `initialize` with torchrun, as documented."""
    command = [
        *[sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"],
        *["stages.initialize", "--shards", "shards", "--features", "features", "--out", "run", *arguments],
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SOUNDSPOT_DEVICE": "cpu"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)
def test_torchrun_trains_in_one_folder_and_reports_once(settings, tmp_path):
    shards = write_shards(tmp_path / "shards", counts=(8, 8))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params |= {"dataset": "demo", "seeds": [0], "training": {"demo": settings.model_dump(mode="json")}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("initialize, seed 0: epoch 1") == 1
    initialize(shards, tmp_path / "one", settings=settings, seeds=[0])
    assert_like(tmp_path / "run", tmp_path / "one", clip_ids=shards.clip_ids)

    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished and unchanged") == 1

    # Both ranks find it.
    with open(tmp_path / "shards/shard-00001.h5", "r+b") as file:
        file.truncate(1000)
    done = torchrun(tmp_path, "--fresh")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "shard-00001.h5" in errors[0]
