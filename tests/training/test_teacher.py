"""The averaged weights that label the training set: against a loop over the steps, and resumed to the same bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from pipeline.common.config import AugmentationSettings
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import build_model
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training import loop
from pipeline.training.checkpoints import load_model, load_weights, read_checkpoint
from pipeline.training.train import initialize, train
from tests.support.synthetic import ENCODER, make_settings, make_world

METHOD, DECAY = "iterative", 0.7


@pytest.fixture(scope="module")
def world():
    return make_world(24, size=32)[0]


@pytest.fixture(scope="module")
def initial(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "initialize"
    initialize(world, folder, settings=changed(), seeds=[0, 1], device="cpu")
    return folder


def changed(**values):
    settings = make_settings(augmentation=AugmentationSettings(flip=True))
    return settings.model_copy(update={"iterate": settings.iterate.model_copy(update=values)})


def run(world, initial, folder, **values):
    train(world, initial, folder, method=METHOD, settings=changed(**values), seeds=[0, 1], device="cpu")
    return folder


def digests(folder):
    paths = [*folder.rglob("*.h5"), *folder.rglob("*.pt"), *folder.rglob("history.csv")]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def artifact(folder, epoch):
    return PseudoLabels.open(folder / f"pseudo_labels/epoch_{epoch:03d}.h5")


def labels_of(weights, world):
    """Label the world with weights by name: R and a."""
    model = build_model(ENCODER)
    model.load_state_dict(weights)
    method = build_method(METHOD, method_settings(changed(), METHOD))
    return TrainedModel(model, method).predict(world, batch_size=8, device="cpu")


def assert_labels(labels, world, weights):
    response, audio = labels_of(weights, world)
    np.testing.assert_allclose(labels.response_min, response.min(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(labels.response_max, response.max(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(labels.audio_embedding, audio, atol=1e-3)  # stored as float16


def test_labels_are_of_the_average_over_all_steps_and_the_model_is_the_trained_one(
    world, initial, tmp_path, monkeypatch
):
    """The average is computed here step by step, in float64."""
    seen = []
    method_loss = build_method(METHOD, method_settings(changed(), METHOD)).loss.__func__

    def loss(self, model, batch):  # the weights before a step are those after the step before it
        seen.append({name: value.detach().clone().double() for name, value in model.state_dict().items()})
        return method_loss(self, model, batch)

    start = load_model(initial / "model.pt").encoders.state_dict()
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.methods.iterative.Iterative.loss", loss)
        train(
            world, initial, tmp_path / "run", method=METHOD, settings=changed(teacher_decay=DECAY), seeds=[0], device="cpu"
        )  # fmt: skip
    last = load_model(tmp_path / "run/model.pt").encoders.state_dict()
    after = [*seen[1:], {name: value.double() for name, value in last.items()}]
    assert len(after) == 6  # three steps in each of two epochs
    average = {name: value.double() for name, value in start.items()}
    for step, weights in enumerate(after, start=1):
        average = {name: DECAY * value + (1 - DECAY) * weights[name] for name, value in average.items()}
        if step == 3:
            assert_labels(artifact(tmp_path / "run", 1), world, average)
    assert_labels(artifact(tmp_path / "run", 2), world, average)
    # The trained weights have other labels, so the comparison above can tell the two apart.
    with pytest.raises(AssertionError):
        assert_labels(artifact(tmp_path / "run", 2), world, last)


def test_zero_is_no_teacher(world, initial, tmp_path):
    assert digests(run(world, initial, tmp_path / "zero", teacher_decay=0.0)) == digests(
        run(world, initial, tmp_path / "none")
    )


def test_the_first_epoch_trains_as_without_a_teacher(world, initial, tmp_path):
    """It reads the labels of the initialization; only the second epoch reads the teacher's."""
    plain, averaged = run(world, initial, tmp_path / "plain"), run(world, initial, tmp_path / "t", teacher_decay=DECAY)
    first, second = (
        [load_model(folder / name).encoders.state_dict()["visual.conv1.weight"] for folder in (plain, averaged)]
        for name in ("weights/epoch_001.pt", "model.pt")
    )
    assert torch.equal(*first)
    assert not torch.equal(*second)


def interrupt_after_each_epoch(patch):
    saved = loop.save

    def interrupted(run, state):
        saved(run, state)
        raise KeyboardInterrupt

    patch.setattr(loop, "save", interrupted)


def test_an_interrupted_run_resumes_to_the_same_bytes(world, initial, tmp_path, monkeypatch):
    values = {"teacher_decay": DECAY, "epochs": 3, "draws": 2, "relation_from": "either", "delta_v_start": 0.9}
    whole = run(world, initial, tmp_path / "whole", **values)
    with monkeypatch.context() as patch:
        interrupt_after_each_epoch(patch)
        for _ in range(6):  # three epochs of two seeds
            with pytest.raises(KeyboardInterrupt):
                run(world, initial, tmp_path / "part", **values)
    run(world, initial, tmp_path / "part", **values)
    assert digests(tmp_path / "part") == digests(whole)


def test_a_state_without_the_teacher_starts_from_scratch(world, initial, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt_after_each_epoch(patch)
        with pytest.raises(KeyboardInterrupt):
            run(world, initial, tmp_path / "part", teacher_decay=DECAY)
    path = tmp_path / "part/state.pt"
    content = torch.load(path, weights_only=True)
    teacher = [name for name in content if name.startswith("teacher.")]
    assert len(teacher) == len(build_model(ENCODER).state_dict())
    del content[teacher[0]]
    torch.save(content, path)
    with pytest.raises(Exception, match=teacher[0].removeprefix("teacher.")):
        load_weights(build_model(ENCODER), read_checkpoint(path), path, prefix="teacher.")
    whole = run(world, initial, tmp_path / "whole", teacher_decay=DECAY)
    assert digests(run(world, initial, tmp_path / "part", teacher_decay=DECAY)) == digests(whole)
    assert "resuming" not in capsys.readouterr().err
