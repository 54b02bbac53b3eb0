"""Which parts of a backbone learn, and features that were computed before."""

import pytest
import torch

from pipeline.common.config import TimmSettings
from pipeline.model.encoders import build_model
from tests.support.synthetic import ENCODER, SMALL

FRAMES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
LOG_MEL = torch.randn(6, 16, 32, generator=torch.Generator().manual_seed(2))


def encoders(trainable, backbone=SMALL):
    torch.manual_seed(0)
    visual = backbone.model_copy(update={"trainable": trainable})
    return build_model(ENCODER.model_copy(update={"visual": visual}))


def step(model):
    """Take one step, and return the names of what it changed: parameters and buffers."""
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.1)
    response = torch.einsum("ndhw,md->nmhw", model.encode_frames(FRAMES), model.encode_audio(LOG_MEL))
    response.amax(dim=(2, 3)).diagonal().sum().backward()
    optimizer.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("trainable", "stages"), [("all", ("conv1", "layer1", "layer4")), ("last_stage", ("layer4",)), ("none", ())]
)
def test_only_the_trainable_part_moves(trainable, stages):
    model = encoders(trainable)
    changed = step(model)
    assert {name.split(".")[1] for name in changed if name.startswith("visual.")} >= set(stages)
    if trainable != "all":
        assert all(name.split(".")[1] in stages for name in changed if name.startswith("visual."))
    assert {
        "visual_projection.weight",
        "visual_norm.running_mean",
        "audio.conv1.weight",
        "audio.bn1.running_mean",
    } <= changed


def test_stored_features_take_the_place_of_frames():
    model = encoders("none").train()
    features = model.visual_features(FRAMES)
    stored = features.half()
    assert torch.equal(model.visual_features(stored), stored.float())
    torch.testing.assert_close(model.eval().encode_frames(stored), model.encode_frames(FRAMES), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
@pytest.mark.parametrize("trainable", ["last_stage", "none"])
def test_the_last_stage_of_a_backbone_of_timm(name, trainable):
    stride = 16 if name == "test_vit" else 32
    model = encoders(trainable, TimmSettings(backbone=f"timm:{name}", stride=stride))
    names = [key for key, _ in model.visual.net.named_parameters()]
    changed = {key.removeprefix("visual.net.") for key in step(model) if key.startswith("visual.")}
    if trainable == "none":
        assert not changed
        return
    last = {
        "test_resnet": "layer4",
        "test_efficientnet": "blocks.4",
        "test_convnext": "stages_3",
        "test_vit": "model.blocks.5",
    }
    assert changed
    assert all(key.startswith(last[name]) for key in changed)
    learning = {key for key, parameter in model.visual.net.named_parameters() if parameter.requires_grad}
    assert learning == {key for key in names if key.startswith(last[name])}
