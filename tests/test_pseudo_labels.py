import h5py
import numpy as np
import pytest

from pipeline.errors import PseudoLabelError
from pipeline.pseudo_labels import PseudoLabels, write_pseudo_labels

ATTRS = {
    "epoch": 3,
    "stage": "train",
    "objective": "iterative",
    "delta_v": 0.6,
    "delta_a": 0.8,
    "temperature": 0.3,
    "fingerprint": "f" * 32,
}


def make_labels(n=5, seed=0, **attrs):
    rng = np.random.default_rng(seed)
    audio = rng.normal(size=(n, 4)).astype(np.float32)
    audio /= np.linalg.norm(audio, axis=1, keepdims=True)
    response = rng.normal(size=(n, 3, 2)).astype(np.float32)
    return (
        response,
        audio,
        PseudoLabels.from_responses([f"clip-{i}" for i in range(n)], response, audio, **{**ATTRS, **attrs}),
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "pseudo_labels" / "epoch_003.h5"
    write_pseudo_labels(path, make_labels()[2])
    return path


def test_round_trip(path):
    response, audio, labels = make_labels()
    read = PseudoLabels.open(path)
    assert read.clip_ids == labels.clip_ids
    assert read.attrs == ATTRS
    for name in ("response", "response_min", "response_max", "audio_embedding", "sounding_fraction"):
        assert getattr(read, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(read, name), getattr(labels, name))
    np.testing.assert_allclose(read.audio_embedding, audio, atol=1e-3)
    spread = (read.response_max - read.response_min)[:, None, None]
    np.testing.assert_allclose(read.response * spread + read.response_min[:, None, None], response, atol=2e-3)
    assert (read.response.min(axis=(1, 2)) == 0).all()
    assert (read.response.max(axis=(1, 2)) == 1).all()


def test_sounding_fraction_counts_cells_above_delta_v():
    _, _, labels = make_labels()
    expected = [sum(cell > 0.6 for cell in one.flatten()) / 6 for one in labels.response]
    np.testing.assert_allclose(labels.sounding_fraction, expected, rtol=1e-6)
    assert labels.restated(delta_v=1.0).sounding_fraction.max() == 0
    assert labels.restated(delta_v=1.0).attrs == {**ATTRS, "delta_v": 1.0}


def test_bytes_follow_from_the_labels_alone(path, tmp_path):
    other = tmp_path / "another_name.h5"
    write_pseudo_labels(other, make_labels()[2])
    assert other.read_bytes() == path.read_bytes()
    write_pseudo_labels(other, PseudoLabels.open(path))
    assert other.read_bytes() == path.read_bytes()
    write_pseudo_labels(other, make_labels(seed=1)[2])
    assert other.read_bytes() != path.read_bytes()


def test_file_has_the_documented_types(path):
    with h5py.File(path) as file:
        assert file["clip_id"].dtype == "S6"
        assert file["response"].dtype == file["audio_embedding"].dtype == np.float16
        assert file["response_min"].dtype == file["sounding_fraction"].dtype == np.float32
        assert set(file.attrs) >= set(ATTRS) | {"format_version"}


def test_opens_in_xarray_with_named_axes(path):
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        assert dataset["response"].dims == ("clip", "row", "col")
        assert dataset["audio_embedding"].dims == ("clip", "feature")
        assert set(dataset.variables) == {
            "clip_id", "response", "response_min", "response_max", "audio_embedding", "sounding_fraction",
        }  # fmt: skip
        assert dataset.attrs["objective"] == "iterative"
        assert dataset.attrs["delta_v"] == 0.6


def test_rows_find_clips_in_any_order():
    labels = make_labels()[2]
    assert labels.rows(["clip-3", "clip-0"]).tolist() == [3, 0]
    with pytest.raises(PseudoLabelError, match=r"clip 'other' has no pseudo-labels of epoch 3.*rerun initialize"):
        labels.rows(["clip-1", "other"])


def test_mask_iou():
    labels = make_labels()[2]
    assert labels.mask_iou(labels) == 1
    halves = labels.restated(delta_v=0.0), labels
    expected = np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(halves[0].masks, halves[1].masks, strict=True)])
    assert halves[1].mask_iou(halves[0]) == pytest.approx(expected)
    empty = labels.restated(delta_v=1.0)
    assert empty.mask_iou(empty) == 1
    assert empty.mask_iou(labels) == 0


def test_constant_map_has_no_sounding_cell():
    labels = PseudoLabels.from_responses(
        ["a"], np.full((1, 2, 2), 0.3, np.float32), np.ones((1, 2), np.float32), **ATTRS
    )
    assert labels.sounding_fraction.tolist() == [0]
    assert not labels.response.any()


def test_missing_file(tmp_path):
    with pytest.raises(PseudoLabelError, match=r"epoch_000\.h5: no such pseudo-labels"):
        PseudoLabels.open(tmp_path / "epoch_000.h5")


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all"])
def test_garbage(tmp_path, content):
    path = tmp_path / "epoch_000.h5"
    path.write_bytes(content)
    with pytest.raises(PseudoLabelError, match=r"epoch_000\.h5: damaged"):
        PseudoLabels.open(path)


def test_truncated_file(path):
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(PseudoLabelError, match=r"epoch_003\.h5: damaged"):
        PseudoLabels.open(path)


@pytest.mark.parametrize("field", ["response", "audio_embedding", "clip_id"])
def test_a_flipped_bit_in_the_data_is_found(path, field):
    with h5py.File(path) as file:
        offset = file[field].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 1] ^= 4
    path.write_bytes(content)
    with pytest.raises(PseudoLabelError, match="damaged"):
        PseudoLabels.open(path)


def change(path, field, value):
    with h5py.File(path, "r+") as file:
        file[field][...] = value


def test_values_out_of_range_and_other_versions_are_refused(path):
    change(path, "response", 1.5)
    with pytest.raises(PseudoLabelError, match=r"not all in \[0, 1\]"):
        PseudoLabels.open(path)
    change(path, "response", np.nan)
    with pytest.raises(PseudoLabelError, match=r"not all in \[0, 1\]"):
        PseudoLabels.open(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(PseudoLabelError, match="format_version is 99, this program reads 1"):
        PseudoLabels.open(path)


def test_contradictions_are_refused(path):
    change(path, "clip_id", b"clip-0")
    with pytest.raises(PseudoLabelError, match="twice"):
        PseudoLabels.open(path)
    with h5py.File(path, "r+") as file:
        del file["response_min"]
    with pytest.raises(PseudoLabelError, match="damaged or not a pseudo-label file"):
        PseudoLabels.open(path)
    with h5py.File(path, "r+") as file:
        file["response_min"] = np.zeros(2, np.float32)
    with pytest.raises(PseudoLabelError, match="differ in length"):
        PseudoLabels.open(path)


def test_attributes_must_be_complete():
    with pytest.raises(ValueError, match="attributes must be"):
        PseudoLabels.from_responses(["a"], np.zeros((1, 2, 2), np.float32), np.zeros((1, 2), np.float32), epoch=1)
