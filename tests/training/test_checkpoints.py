import zipfile

import pytest
import torch

from pipeline.common.errors import CheckpointError, PackageError
from pipeline.model.encoders import build_model
from pipeline.training.checkpoints import (
    flatten_optimizer,
    load_model,
    model_content,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from tests.support.localizing import AUDIO
from tests.support.synthetic import ENCODER, make_settings


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(ENCODER)


def describe(**changes):
    return {
        "method": "iterative",
        "stage": "train",
        "seed": 0,
        "epoch": 2,
        "fingerprint": "f" * 32,
        "image_size": 64,
        "delta_v": 0.7,
        "encoder": ENCODER.model_dump_json(),
        "iteration": make_settings().iterate.model_dump_json(),
        "audio": AUDIO.model_dump_json(),
        "n_clips": 24,
        "classes": '["bell", "drum"]',
        **changes,
    }


def test_round_trip(model, tmp_path):
    write_checkpoint(tmp_path / "model.pt", model_content(model, describe()))
    before = torch.get_rng_state()
    trained = load_model(tmp_path / "model.pt")
    loaded, description = trained.encoders, trained.description
    assert torch.equal(torch.get_rng_state(), before)
    assert description == {
        **describe(),
        "encoder": ENCODER.model_dump(mode="json"),
        "iteration": make_settings().iterate.model_dump(mode="json"),
        "audio": AUDIO.model_dump(mode="json"),
        "classes": ["bell", "drum"],
    }
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(loaded.encode_frames(frames), model.eval().encode_frames(frames))
    assert not loaded.training


def test_file_is_one_flat_dict_and_needs_no_code(model, tmp_path):
    write_checkpoint(tmp_path / "model.pt", model_content(model, describe()))
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(isinstance(value, int | float | str | torch.Tensor) for value in content.values())


def test_bytes_follow_from_the_content_alone(model, tmp_path):
    content = model_content(model, describe())
    write_checkpoint(tmp_path / "a.pt", content)
    # The same strings as other objects, and the same tensors as views of larger ones.
    other = {
        "".join(list(name)): value if not isinstance(value, str) else "".join(list(value))
        for name, value in content.items()
    }
    for name, value in other.items():
        if isinstance(value, torch.Tensor) and value.ndim == 4:
            other[name] = torch.stack([value, value])[1].contiguous()
    write_checkpoint(tmp_path / "quite_another_name.pt", other)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "quite_another_name.pt").read_bytes()


def test_reading_and_writing_gives_the_same_bytes(model, tmp_path):
    write_checkpoint(tmp_path / "a.pt", model_content(model, describe()))
    write_checkpoint(tmp_path / "b.pt", read_checkpoint(tmp_path / "a.pt"))
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_optimizer_resumes_where_it_stopped(model, tmp_path):
    def step(net, optimizer, number):
        frames = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        net.encode_frames(frames.float()).square().mul(torch.linspace(0, 1, 16).view(1, 16, 1, 1)).sum().backward()
        optimizer.step()

    first = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for number in range(3):
        step(model, first, number)
    write_checkpoint(tmp_path / "state.pt", {**model_content(model, describe()), **flatten_optimizer(first)})

    saved = read_checkpoint(tmp_path / "state.pt")
    resumed = build_model(ENCODER)
    resumed.load_state_dict({name[6:]: value for name, value in saved.items() if name.startswith("model.")})
    second = torch.optim.AdamW(resumed.parameters(), lr=1e-3)
    restore_optimizer(second, saved)
    step(model, first, 3)
    step(resumed, second, 3)
    for mine, other in zip(model.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_a_package_that_its_backbones_need_is_named(model, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "model.pt", model_content(model, describe()))
    monkeypatch.setattr("pipeline.training.checkpoints.build_model", _without_timm)
    with pytest.raises(PackageError, match=r"^no timm$"):
        load_model(tmp_path / "model.pt")


def _without_timm(encoder):
    raise PackageError("no timm")


def test_missing_damaged_and_other_files(model, tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.pt: no such file"):
        load_model(tmp_path / "model.pt")
    write_checkpoint(tmp_path / "model.pt", model_content(model, describe()))
    (tmp_path / "half.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"half\.pt"):
        load_model(tmp_path / "half.pt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match=r"foreign\.pt.*None"):
        load_model(tmp_path / "foreign.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "{}"}, "'audio"),
        ({"encoder": '{"depth": 3}'}, "depth"),
        ({"iteration": "not JSON"}, "JSON"),
        ({"method": "dreaming"}, "'dreaming'"),
        ({"n_clips": "24"}, "'n_clips' is '24'"),
        ({"classes": 3}, "'classes' is 3"),
        ({"classes": "[1, 2]"}, "classes"),
        ({"image_size": 0}, "image_size"),
        ({"delta_v": float("nan")}, "delta_v"),
        ({"audio": "{}"}, "audio"),
        ({"audio": "[1]"}, "audio"),
    ],
)
def test_inconsistent_entries_are_named(model, tmp_path, changes, message):
    write_checkpoint(tmp_path / "model.pt", model_content(model, describe(**changes)))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "model.pt")


def test_a_part_that_was_added_under_the_same_name_is_damage(model, tmp_path):
    write_checkpoint(tmp_path / "model.pt", model_content(model, describe()))
    with zipfile.ZipFile(tmp_path / "model.pt", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/3", bytes(len(archive.read("archive/data/3"))))
    with pytest.raises(CheckpointError, match=r"model\.pt.*'archive/data/3' twice"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("value", [torch.zeros(2), torch.zeros(8, dtype=torch.float64), "text"])
def test_weights_of_another_shape_or_type_are_named(model, tmp_path, value):
    write_checkpoint(tmp_path / "model.pt", {**model_content(model, describe()), "model.visual.bn1.weight": value})
    with pytest.raises(CheckpointError, match=r"model\.pt: its weights do not match.*'visual\.bn1\.weight'"):
        load_model(tmp_path / "model.pt")


def test_settings_are_read_without_the_weights_but_not_without_their_checksum(model, tmp_path):
    path = tmp_path / "model.pt"
    write_checkpoint(path, model_content(model, describe()))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"iterative", b"iterativf"))
    with pytest.raises(CheckpointError, match=r"model\.pt: damaged"):
        read_checkpoint(path, mmap=True)


def test_a_missing_entry_is_named(model, tmp_path):
    content = model_content(model, describe())
    del content["method"]
    write_checkpoint(tmp_path / "model.pt", content)
    with pytest.raises(CheckpointError, match="'method'"):
        load_model(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="'method'"):
        model_content(model, {"method": "initial"})
