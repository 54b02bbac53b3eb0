import hashlib
import subprocess
import sys
import zipfile
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from pipeline.common.config import EncoderSettings, ResNetSettings, load_params
from pipeline.common.errors import CheckpointError, SettingsError
from pipeline.model.backbones.build import backbone_stride
from pipeline.model.backbones.interface import IMAGENET_MEAN
from pipeline.model.backbones.resnet import ResNet, receptive_field
from pipeline.model.encoders import build_model, standardize
from tests.support.projects import ROOT
from tests.support.synthetic import ENCODER, SMALL

DEMO = ResNetSettings(blocks=(1, 1, 1, 1), width=24, strides=(1, 2, 1, 1), kernel_sizes=(3, 3, 1, 1))
RESNET18 = ResNetSettings()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def input_gradient(settings, cell, *, size):
    """Return the pixels that a cell of the map depends on, (size, size) bool, from gradients."""
    torch.manual_seed(0)
    net = ResNet(settings.model_copy(update={"width": 4}), channels_in=1, centered=True).eval()
    for parameter in net.parameters():
        parameter.data.abs_()  # so that nothing cancels and no ReLU is inactive
    frame = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    # Max-pooling passes the gradient to one pixel only; average pooling has the same extent and passes it to all.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pipeline.model.backbones.resnet.max_pool", partial(F.avg_pool2d, kernel_size=3, stride=2, padding=1)
        )
        net.double()(frame)[0, :, cell, cell].sum().backward()
    return frame.grad[0, 0] > 0


class TestShapes:
    def test_resnet18_with_last_stride_1_gives_512_by_16_by_16(self):
        with torch.no_grad():
            assert ResNet(RESNET18, channels_in=3, centered=True)(torch.zeros(1, 3, 256, 256)).shape == (1, 512, 16, 16)
            assert ResNet(RESNET18, channels_in=3, centered=True)(torch.zeros(1, 3, 224, 224)).shape == (1, 512, 14, 14)

    def test_audio_encoder_takes_one_channel(self):
        with torch.no_grad():
            assert ResNet(RESNET18, channels_in=1, centered=False)(torch.zeros(1, 1, 64, 251)).shape == (1, 512, 4, 16)

    def test_demo_model(self):
        audio = ResNetSettings(width=16, strides=(1, 2, 2, 2))
        model = build_model(EncoderSettings(visual=DEMO, audio=audio, embedding_dim=128, batch_norm=True)).eval()
        with torch.no_grad():
            assert model.encode_frames(torch.zeros(2, 3, 128, 128, dtype=torch.uint8)).shape == (2, 128, 16, 16)
            assert model.encode_audio(torch.zeros(2, 64, 101)).shape == (2, 128)
        assert model.cell_stride == 8

    def test_state_dict_has_torchvisions_names_and_shapes(self):
        shapes = {
            name: tuple(value.shape)
            for name, value in ResNet(RESNET18, channels_in=3, centered=True).state_dict().items()
        }
        assert len(shapes) == 120  # torchvision's 122 without fc.weight and fc.bias
        assert shapes["conv1.weight"] == (64, 3, 7, 7)
        assert shapes["bn1.running_var"] == (64,)
        assert shapes["layer1.1.conv2.weight"] == (64, 64, 3, 3)
        assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
        assert shapes["layer4.0.downsample.1.running_mean"] == (512,)
        assert shapes["layer4.1.bn2.num_batches_tracked"] == ()
        assert not any(name.startswith("layer1.0.downsample") for name in shapes)


class TestReceptiveField:
    @pytest.mark.parametrize(
        "settings", [DEMO, ResNetSettings(blocks=(1, 2, 1, 1), strides=(1, 1, 2, 1), kernel_sizes=(1, 3, 3, 1))]
    )
    def test_equals_the_extent_of_the_gradient(self, settings):
        reached = input_gradient(settings, 12, size=24 * backbone_stride(settings))
        for axis in (0, 1):
            assert reached.any(dim=axis).sum() == receptive_field(settings)

    def test_known_values(self):
        assert receptive_field(DEMO) == 51
        assert receptive_field(ResNetSettings(strides=(1, 2, 2, 2))) == 435  # published for ResNet-18

    @pytest.mark.parametrize(
        "settings",
        [
            DEMO,
            ResNetSettings(blocks=(1, 1, 1, 1), strides=(1, 1, 1, 1)),
            ResNetSettings(blocks=(1, 1, 1, 1), kernel_sizes=(3, 1, 1, 1)),
            ResNetSettings(blocks=(1, 1, 1, 1), strides=(2, 1, 1, 2)),
            ResNetSettings(blocks=(1, 1, 1, 1), strides=(1, 2, 2, 2)),
        ],
        ids=lambda settings: str(settings.strides),
    )
    def test_is_centered_on_the_cells_own_patch(self, settings):
        stride = backbone_stride(settings)
        inside = input_gradient(settings, 12, size=24 * stride).any(dim=0).nonzero().double()
        assert inside.mean().item() - (12 * stride + (stride - 1) / 2) == -0.5

    def test_a_mirrored_frame_has_the_mirrored_map(self):
        """For a blob far from the borders, and up to the half pixel by which all cells are off."""
        torch.manual_seed(0)
        net = ResNet(RESNET18.model_copy(update={"width": 4}), channels_in=1, centered=True).double().eval()
        for parameter in net.parameters():
            if parameter.ndim == 4:
                parameter.data.fill_(1 / parameter[0].numel())  # symmetric and positive: the blob stays where it is
        ramp = torch.arange(1024, dtype=torch.float64)
        blob = torch.exp(-(((ramp - 500) / 20) ** 2))
        frame = (blob[:, None] * blob)[None, None]
        with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "pipeline.model.backbones.resnet.max_pool", partial(F.avg_pool2d, kernel_size=3, stride=2, padding=1)
            )
            centers = []
            for flipped in (False, True):
                seen = net(frame.flip(3) if flipped else frame)[0].sum(dim=(0, 1))
                seen = seen.flip(0) if flipped else seen
                centers.append((seen * torch.arange(64)).sum() / seen.sum())
        assert abs(centers[0] - centers[1]) * 16 == pytest.approx(1, abs=0.05)
        assert 16 * centers[0] + 7.5 == pytest.approx(500, abs=0.55)

    def test_inside_the_borders_it_is_the_symmetric_net_on_a_moved_frame(self):
        torch.manual_seed(0)
        centered = ResNet(RESNET18.model_copy(update={"width": 4}), channels_in=1, centered=True).double().eval()
        symmetric = ResNet(RESNET18.model_copy(update={"width": 4}), channels_in=1, centered=False).double().eval()
        symmetric.load_state_dict(centered.state_dict())
        frame = torch.randn(1, 1, 1024 + 7, 1024 + 7, dtype=torch.float64)
        with torch.no_grad():
            ours, theirs = centered(frame[..., :1024, :1024]), symmetric(frame[..., 7:, 7:])
        inside = slice(16, -16)  # a receptive field is 435 px, 27 cells
        torch.testing.assert_close(ours[..., inside, inside], theirs[..., inside, inside])

    def test_a_frame_of_odd_size_has_all_its_cells(self):
        with torch.no_grad():
            for side, cells in ((225, 15), (250, 16), (241, 16)):
                frame = torch.zeros(1, 3, side, side)
                shapes = {ResNet(RESNET18, channels_in=3, centered=c)(frame).shape for c in (True, False)}
                assert shapes == {(1, 512, cells, cells)}

    @pytest.mark.parametrize("name", ["demo", "soundnet_flickr"])
    def test_every_pixel_and_every_band_counts(self, name):
        settings = load_params(ROOT / "params.yaml").training[name].encoder
        model = build_model(settings.without_weights).eval()
        frames, log_mel = (
            torch.rand(1, 3, 64, 64).mul(255).requires_grad_(),
            torch.randn(1, 64, 101, requires_grad=True),
        )
        (model.visual_features(frames).square().sum() + model.audio_features(log_mel).square().sum()).backward()
        for gradient in (frames.grad[0].abs().sum(dim=0), log_mel.grad[0].abs()):
            assert (gradient.sum(dim=0) > 0).all()
            assert (gradient.sum(dim=1) > 0).all()


class TestNormalization:
    def test_features_have_unit_length(self):
        model = build_model(ENCODER)
        frames, log_mel = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), torch.randn(4, 16, 32)
        torch.testing.assert_close(model.encode_frames(frames).norm(dim=1), torch.ones(4, 8, 8))
        torch.testing.assert_close(model.encode_audio(log_mel).norm(dim=1), torch.ones(4))

    def test_uint8_and_float_frames_agree(self):
        model = build_model(ENCODER).eval()
        frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        assert torch.equal(model.encode_frames(frames), model.encode_frames(frames.float()))

    def test_frame_of_the_imagenet_mean_is_zero_for_the_resnet(self):
        model = build_model(ENCODER).eval()
        mean = 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).expand(1, 3, 64, 64)
        torch.testing.assert_close(model.visual_features(mean), model.visual(torch.zeros(1, 3, 64, 64)))

    def test_standardize_ignores_loudness_and_survives_a_constant(self):
        log_mel = torch.randn(2, 8, 16) * 3 - 7
        torch.testing.assert_close(standardize(log_mel), standardize(2.5 * log_mel + 4))
        torch.testing.assert_close(standardize(log_mel).std(dim=(1, 2), correction=0), torch.ones(2))
        assert torch.equal(standardize(torch.full((1, 8, 16), -23.0)), torch.zeros(1, 8, 16))

    def test_pooling_is_a_setting(self):
        log_mel = torch.randn(2, 16, 32)
        torch.manual_seed(0)
        mean = build_model(EncoderSettings(visual=SMALL, audio=SMALL, audio_pooling="mean")).eval()
        torch.manual_seed(0)
        maximum = build_model(EncoderSettings(visual=SMALL, audio=SMALL, audio_pooling="max")).eval()
        assert (maximum.audio_features(log_mel) >= mean.audio_features(log_mel)).all()
        assert not torch.equal(maximum.audio_features(log_mel), mean.audio_features(log_mel))

    def test_unequal_widths_need_a_projection(self):
        wide = ResNetSettings(width=16)
        with pytest.raises(SettingsError, match=r"128.*64.*embedding_dim"):
            build_model(EncoderSettings(visual=wide, audio=SMALL))


class TestPretrained:
    @pytest.fixture
    def weights(self):
        torch.manual_seed(1)
        own = ResNet(SMALL, channels_in=3, centered=True).state_dict()
        return {**own, "fc.weight": torch.zeros(200, 64), "fc.bias": torch.zeros(200)}

    def build(self, path):
        return build_model(EncoderSettings(visual=SMALL.model_copy(update={"weights": str(path)}), audio=SMALL))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_loads_and_ignores_the_classifier(self, tmp_path, weights, dtype):
        path = tmp_path / "weights.pth"
        torch.save({k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}, path)
        loaded = self.build(path).visual.state_dict()
        for name, value in loaded.items():
            torch.testing.assert_close(value, weights[name], atol=1e-3, rtol=1e-3)
        assert loaded["conv1.weight"].dtype == torch.float32

    def test_old_files_without_num_batches_tracked_load(self, tmp_path, weights):
        path = tmp_path / "old.pth"
        torch.save({k: v for k, v in weights.items() if "num_batches" not in k}, path)
        loaded = self.build(path).visual.state_dict()
        torch.testing.assert_close(loaded["layer4.0.conv1.weight"], weights["layer4.0.conv1.weight"])

    def test_missing_file(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"none\.pth.*encoder\.visual\.weights"):
            self.build(tmp_path / "none.pth")

    @pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 broken"])
    def test_garbage(self, tmp_path, content):
        path = tmp_path / "bad.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"bad\.pth"):
            self.build(path)

    def test_a_file_that_would_run_code_is_refused(self, tmp_path):
        path = tmp_path / "code.pth"
        torch.save({"conv1.weight": print}, path)
        with pytest.raises(CheckpointError, match=r"code\.pth"):
            self.build(path)

    def test_a_list_is_refused(self, tmp_path):
        torch.save([1, 2], tmp_path / "list.pth")
        with pytest.raises(CheckpointError, match=r"list\.pth.*a list"):
            self.build(tmp_path / "list.pth")

    def test_first_key_that_differs_is_named(self, tmp_path, weights):
        path = tmp_path / "weights.pth"
        torch.save({**weights, "layer2.0.conv1.weight": torch.zeros(3, 3)}, path)
        with pytest.raises(CheckpointError, match=r"'layer2\.0\.conv1\.weight'.*\(3, 3\)"):
            self.build(path)
        del weights["layer1.0.bn1.bias"]
        torch.save(weights, path)
        with pytest.raises(CheckpointError, match=r"'layer1\.0\.bn1\.bias'"):
            self.build(path)

    def test_unknown_key_and_nan_are_refused(self, tmp_path, weights):
        path = tmp_path / "weights.pth"
        torch.save({**weights, "layer5.weight": torch.zeros(1)}, path)
        with pytest.raises(CheckpointError, match=r"'layer5\.weight'"):
            self.build(path)
        torch.save({**weights, "bn1.weight": torch.full((8,), float("nan"))}, path)
        with pytest.raises(CheckpointError, match=r"'bn1\.weight'.*finite"):
            self.build(path)

    @pytest.mark.parametrize("place", ["data.pkl", "data/0"])
    def test_a_flipped_bit_is_found(self, tmp_path, weights, place):
        path = tmp_path / "weights.pth"
        torch.save(weights, path)
        with zipfile.ZipFile(path) as archive:
            stored = archive.read(f"weights/{place}")
        content = bytearray(path.read_bytes())
        content[bytes(content).index(stored) + len(stored) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"weights\.pth: damaged.*checksum.*{place}"):
            self.build(path)

    def test_a_decompression_bomb_is_refused(self, tmp_path):
        path = tmp_path / "bomb.pth"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data/0", bytes(10_000_000))
        with pytest.raises(CheckpointError, match=r"bomb\.pth.*larger than the file"):
            self.build(path)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_the_hash_in_a_published_name_is_compared(self, tmp_path, weights, zipped, capsys):
        path = tmp_path / "weights.pth"
        torch.save(weights, path, _use_new_zipfile_serialization=zipped)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.build(path.rename(tmp_path / f"resnet18-{digest}.pth"))
        assert capsys.readouterr().err == ""
        path = (tmp_path / f"resnet18-{digest}.pth").rename(tmp_path / "resnet18-5c106cde.pth")
        with pytest.raises(CheckpointError, match=rf"resnet18-5c106cde\.pth.*SHA-256.*{digest[:8]}"):
            self.build(path)
        self.build(path.rename(tmp_path / "mine-20261128.pth"))  # a date
        # The old format has no checksums, so the user compares.
        assert (digest in capsys.readouterr().err) == (not zipped)


NARROW_NET = """
import torch
from pipeline.common.config import EncoderSettings, ResNetSettings
from pipeline.model.encoders import build_model

net = ResNetSettings(blocks=(1, 1, 1, 1), width=4)
model = build_model(EncoderSettings(visual=net, audio=net, embedding_dim=16))
frames = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
features = model.encode_frames(frames)
(features * torch.randn_like(features)).sum().backward()
"""


def test_the_backward_pass_of_a_narrow_net_survives_channels_last_frames():
    # In its own process: the bug crashed the interpreter.
    done = subprocess.run([sys.executable, "-c", NARROW_NET], check=False)
    assert done.returncode == 0
