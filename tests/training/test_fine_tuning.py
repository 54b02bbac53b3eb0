"""Fine-tuning pretrained backbones: what learns, how fast, and that an interrupted run resumes to the same bytes."""

import hashlib

import pytest
import torch

from pipeline.common.config import EncoderSettings, TimmSettings, TrainingSettings
from pipeline.common.errors import TrainingError
from pipeline.model.encoders import build_model
from pipeline.model.optimizer import build_optimizer
from pipeline.training import loop
from pipeline.training.checkpoints import load_model
from pipeline.training.spec import initialize_specs
from pipeline.training.train import initialize, train
from tests.support.synthetic import ENCODER, SMALL, make_settings, make_world


@pytest.fixture(scope="module")
def world():
    return make_world(16, size=32)[0]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(5)
    torch.save(build_model(ENCODER).visual.state_dict(), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


def settings(weights, *, rate=None, trainable="all", **encoder):
    """Settings whose visual backbone starts from weights, which learn at `rate`."""
    visual = SMALL.model_copy(update={"weights": weights, "trainable": trainable})
    plain = make_settings(encoder=ENCODER.model_copy(update={"visual": visual, **encoder}))
    phases = {
        name: getattr(plain, name).model_copy(update={"backbone_learning_rate": rate})
        for name in ("initialize", "iterate")
    }
    return plain.model_copy(update=phases)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_pretrained_backbone_has_its_own_rate(weights):
    chosen = settings(weights, rate=1e-5)
    model = build_model(chosen.encoder)
    slow, fast = [], []
    for group in build_optimizer(model, chosen.encoder, chosen.initialize).param_groups:
        (slow if group["lr"] == 1e-5 else fast).extend(map(id, group["params"]))
        assert group["lr"] in (1e-5, chosen.initialize.learning_rate)
        assert group["weight_decay"] == chosen.initialize.weight_decay
    assert set(slow) == set(map(id, model.visual.parameters()))
    assert set(fast) | set(slow) == set(map(id, model.parameters()))
    plain = settings(weights)
    assert len(build_optimizer(model, plain.encoder, plain.initialize).param_groups) == 1


def test_the_rate_acts_and_a_frozen_backbone_keeps_its_weights(world, weights, tmp_path):
    moved = {}
    cases = {"slow": {"rate": 1e-7}, "same": {}, "frozen": {"trainable": "none"}, "last": {"trainable": "last_stage"}}
    start = torch.load(weights, weights_only=True)
    for name, changes in cases.items():
        initialize(world, tmp_path / name, settings=settings(weights, **changes), seeds=[0], device="cpu")
        encoders = load_model(tmp_path / name / "model.pt").encoders
        assert not torch.equal(encoders.audio.conv1.weight, start["conv1.weight"][:, :1])
        state = encoders.visual.state_dict()
        moved[name] = {key: float((state[key].float() - value.float()).abs().max()) for key, value in start.items()}
    learned = [key for key in start if key.endswith(("conv1.weight", "conv2.weight"))]
    for key in learned:
        assert 0 < moved["slow"][key] < 1e-2 * moved["same"][key]
    assert not any(moved["frozen"].values())
    assert {key.split(".")[0] for key, by in moved["last"].items() if by} == {"layer4"}
    assert moved["last"]["layer4.0.bn1.running_mean"] > 0


def test_an_interrupted_run_with_two_rates_resumes_to_the_same_bytes(world, weights, tmp_path, monkeypatch):
    chosen = settings(weights, rate=1e-5, trainable="last_stage")
    keywords = {"settings": chosen, "seeds": [0], "device": "cpu"}
    initialize(world, tmp_path / "whole", **keywords)
    train(world, tmp_path / "whole", tmp_path / "whole_itr", method="itr", **keywords)
    saved = loop.save

    def interrupted(run, state):
        saved(run, state)
        if state.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            initialize(world, tmp_path / "part", **keywords)
        with pytest.raises(KeyboardInterrupt):
            train(world, tmp_path / "whole", tmp_path / "part_itr", method="itr", **keywords)
    initialize(world, tmp_path / "part", **keywords)
    train(world, tmp_path / "whole", tmp_path / "part_itr", method="itr", **keywords)
    assert digest(tmp_path / "part/model.pt") == digest(tmp_path / "whole/model.pt")
    assert digest(tmp_path / "part_itr/model.pt") == digest(tmp_path / "whole_itr/model.pt")


def test_rate_and_weights_of_both_backbones_are_part_of_the_fingerprint(world, weights, tmp_path):
    def fingerprint(chosen):
        (spec,) = initialize_specs(world, tmp_path / "run", settings=chosen, seeds=[0])
        return spec.folder.fingerprint

    audio = SMALL.model_copy(update={"weights": str(tmp_path / "audio.pth")})
    torch.manual_seed(7)
    torch.save(build_model(ENCODER).audio.state_dict(), tmp_path / "audio.pth")
    both = settings(weights, audio=audio)
    found = {fingerprint(each) for each in (settings(weights), settings(weights, rate=1e-5), both)}
    torch.save(build_model(ENCODER).audio.state_dict(), tmp_path / "audio.pth")
    assert len(found | {fingerprint(both)}) == 4


def test_nothing_to_train_is_refused(world, weights, tmp_path):
    frozen = SMALL.model_copy(update={"weights": None, "trainable": "none"})
    chosen = settings(weights, trainable="none", audio=frozen, embedding_dim=None)
    with pytest.raises(TrainingError, match=r"both backbones are frozen.*embedding_dim"):
        initialize(world, tmp_path / "run", settings=chosen, seeds=[0], device="cpu")


@pytest.mark.parametrize("phase", ["initialize", "iterate", "methods"])
def test_a_rate_without_a_pretrained_backbone_is_refused(phase):
    content = make_settings().model_dump()
    (content[phase]["itr"] if phase == "methods" else content[phase])["backbone_learning_rate"] = 1e-5
    with pytest.raises(ValueError, match=rf"{phase}.*backbone_learning_rate.*weights"):
        TrainingSettings(**content)
    content["encoder"]["visual"] = TimmSettings(backbone="timm:resnet18", weights="timm").model_dump()
    assert isinstance(TrainingSettings(**content).encoder, EncoderSettings)
