import os

import h5py
import numpy as np
import pytest

from pipeline.common.errors import PseudoLabelError
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.pseudo_labels.hdf5_file import FORMAT_VERSION
from tests.support.mutations import edited

ATTRS = {
    "epoch": 3,
    "stage": "train",
    "objective": "iterative",
    "delta_v": 0.6,
    "delta_a": 0.8,
    "temperature": 0.3,
    "fingerprint": "f" * 32,
    "shards": "e" * 32,
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
    assert labels.with_attributes(delta_v=1.0).sounding_fraction.max() == 0
    assert labels.with_attributes(delta_v=1.0).attrs == {**ATTRS, "delta_v": 1.0}


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
    with pytest.raises(PseudoLabelError, match=r"'other'.*epoch 3"):
        labels.rows(["clip-1", "other"])


def test_mask_iou():
    labels = make_labels()[2]
    assert labels.mask_iou(labels) == 1
    halves = labels.with_attributes(delta_v=0.0), labels
    expected = np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(halves[0].masks, halves[1].masks, strict=True)])
    assert halves[1].mask_iou(halves[0]) == pytest.approx(expected)
    empty = labels.with_attributes(delta_v=1.0)
    assert empty.mask_iou(empty) == 1
    assert empty.mask_iou(labels) == 0


def test_constant_map_has_no_sounding_cell():
    labels = PseudoLabels.from_responses(
        ["a"], np.full((1, 2, 2), 0.3, np.float32), np.ones((1, 2), np.float32), **ATTRS
    )
    assert labels.sounding_fraction.tolist() == [0]
    assert not labels.response.any()


def test_missing_file(tmp_path):
    with pytest.raises(PseudoLabelError, match=r"epoch_000\.h5: no such"):
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
    with pytest.raises(PseudoLabelError, match=r"epoch_003\.h5.*damaged"):
        PseudoLabels.open(path).verify()
    with pytest.raises(PseudoLabelError, match=r"epoch_003\.h5.*damaged"):
        getattr(PseudoLabels.open(path), field)


def change(path, field, value):
    with edited(path) as file:
        file[field][...] = value


@pytest.mark.parametrize("value", [1.5, -0.5, np.nan])
def test_values_out_of_range_are_rejected_on_reading(path, value):
    with edited(path) as file:
        file["response"][2, 1, 1] = value
    labels = PseudoLabels.open(path)
    for read in (lambda: labels.response, labels.verify, lambda: labels["clip-2"], lambda: labels[["clip-2"]].masks):
        with pytest.raises(PseudoLabelError, match=r"response.*'clip-2'"):
            read()
    assert labels["clip-1"].response.shape == (3, 2)
    change(path, "audio_embedding", np.inf)
    with pytest.raises(PseudoLabelError, match=r"audio_embedding.*'clip-0'"):
        PseudoLabels.open(path).select(["clip-0"]).audio_embedding.sum()


def test_other_versions_are_rejected(path):
    with edited(path) as file:
        file.attrs["format_version"] = 99
    with pytest.raises(PseudoLabelError, match=rf"format_version is 99.*{FORMAT_VERSION}"):
        PseudoLabels.open(path)


def test_inconsistent_files_are_rejected(path):
    change(path, "clip_id", b"clip-0")
    with pytest.raises(PseudoLabelError, match="'clip-0'"):
        PseudoLabels.open(path)
    with edited(path) as file:
        del file["response_min"]
    with pytest.raises(PseudoLabelError, match="response_min"):
        PseudoLabels.open(path)
    with edited(path) as file:
        file["response_min"] = np.zeros(2, np.float32)
    with pytest.raises(PseudoLabelError, match="length"):
        PseudoLabels.open(path)


def test_attributes_must_be_complete():
    with pytest.raises(ValueError, match="epoch"):
        PseudoLabels.from_responses(["a"], np.zeros((1, 2, 2), np.float32), np.zeros((1, 2), np.float32), epoch=1)


def test_one_clip_is_one_row(path):
    response, audio, _ = make_labels()
    labels = PseudoLabels.open(path)
    clip = labels["clip-3"]
    assert (clip.clip_id, clip.response_min, clip.response_max) == ("clip-3", response[3].min(), response[3].max())
    np.testing.assert_array_equal(clip.response, labels.response[3])
    np.testing.assert_array_equal(clip.mask, labels.masks[3])
    np.testing.assert_allclose(clip.raw_response, response[3], atol=2e-3)
    np.testing.assert_allclose(clip.audio_embedding, audio[3], atol=1e-3)
    assert clip.sounding_fraction == labels.sounding_fraction[3]
    with pytest.raises(PseudoLabelError, match=r"'clip-9'.*epoch 3"):
        labels["clip-9"]


def test_the_labels_are_a_collection_of_clips(path):
    labels = PseudoLabels.open(path)
    assert len(labels) == 5
    assert list(labels) == labels.clip_ids
    assert "clip-4" in labels
    assert "clip-5" not in labels
    assert labels.path == path


@pytest.mark.parametrize("ids", [["clip-4", "clip-0", "clip-4"], [], ["clip-1"]])
def test_some_clips_in_any_order(path, ids):
    labels = PseudoLabels.open(path)
    some = labels[ids]
    assert some.clip_ids == ids
    assert some.attrs == labels.attrs
    for name in ("response", "response_min", "response_max", "audio_embedding", "sounding_fraction", "masks"):
        np.testing.assert_array_equal(getattr(some, name), getattr(labels, name)[labels.rows(ids)])
    again = some.select(ids[::-1])
    np.testing.assert_array_equal(again.response, labels.response[labels.rows(ids[::-1])])
    in_memory = make_labels()[2].select(ids)
    np.testing.assert_array_equal(in_memory.response, some.response)


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (slice("clip-1", "clip-3"), [1, 2, 3]),
        (slice("clip-3", None), [3, 4]),
        (slice(None, "clip-1"), [0, 1]),
        (slice("clip-2", "clip-2"), [2]),
        (slice(None), [0, 1, 2, 3, 4]),
        (slice("clip-3", "clip-1"), []),
    ],
)
def test_from_one_clip_to_another_in_the_files_order(path, ids, rows):
    for labels in (PseudoLabels.open(path), make_labels()[2]):
        some = labels[ids]
        assert some.clip_ids == [f"clip-{row}" for row in rows]
        for name in ("response", "audio_embedding", "sounding_fraction"):
            np.testing.assert_array_equal(getattr(some, name), getattr(labels, name)[rows])
        if rows:
            np.testing.assert_array_equal(some[some.clip_ids[-1] :].response, labels.response[rows[-1:]])
            np.testing.assert_array_equal(some[some.clip_ids[0]].response, labels.response[rows[0]])


def test_invalid_slices(path):
    labels = PseudoLabels.open(path)
    with pytest.raises(ValueError, match="step, got 2"):
        labels["clip-0":"clip-4":2]
    for wrong in (slice("clip-9", None), slice(None, "clip-9")):
        with pytest.raises(PseudoLabelError, match="'clip-9'"):
            labels[wrong]


def test_a_clip_opens_the_file_once(path, monkeypatch):
    labels = PseudoLabels.open(path)
    opened = []
    whole = h5py.File
    monkeypatch.setattr("pipeline.common.hdf5.h5py.File", lambda *a, **k: opened.append(a) or whole(*a, **k))
    assert labels["clip-3"].response.shape == (3, 2)
    assert len(opened) == 1


def test_rows_of_many_chunks_are_those_of_the_whole(tmp_path):
    path = tmp_path / "epoch_000.h5"
    write_pseudo_labels(path, make_labels(n=1000)[2])
    labels = PseudoLabels.open(path)
    ids = [f"clip-{i}" for i in np.random.default_rng(0).integers(0, 1000, 300)]
    np.testing.assert_array_equal(labels[ids].response, labels.response[labels.rows(ids)])
    assert labels[ids].select(ids[5:7]).clip_ids == ids[5:7]
    np.testing.assert_array_equal(labels[ids].select(ids[5:7]).response_max, labels.response_max[labels.rows(ids[5:7])])


def test_blocks_are_all_clips_in_order(tmp_path, monkeypatch):
    path = tmp_path / "epoch_000.h5"
    write_pseudo_labels(path, make_labels(n=700)[2])
    monkeypatch.setattr("pipeline.pseudo_labels.hdf5_file.blocks.__defaults__", (256,))
    labels = PseudoLabels.open(path)
    parts = list(labels.blocks())
    assert [len(part) for part in parts] == [256, 256, 188]
    assert [clip_id for part in parts for clip_id in part] == labels.clip_ids
    np.testing.assert_array_equal(np.concatenate([part.response for part in parts]), labels.response)
    np.testing.assert_array_equal(parts[2]["clip-600"].response, labels["clip-600"].response)


def test_only_what_is_asked_for_is_read(tmp_path):
    path = tmp_path / "epoch_000.h5"
    write_pseudo_labels(path, make_labels(n=600)[2])
    with h5py.File(path) as file:  # damage the last chunk of the maps
        offset = file["response"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    labels, opened = PseudoLabels.open(path), path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(opened.st_atime_ns, opened.st_mtime_ns))
    assert labels["clip-511"].response.shape == (3, 2)
    assert labels.audio_embedding.shape == (600, 4)
    with pytest.raises(PseudoLabelError, match=r"response.*damaged"):
        labels["clip-512"]


def test_a_modified_file_is_not_mixed_with_the_opened_one(path):
    labels = PseudoLabels.open(path)
    write_pseudo_labels(path, make_labels(seed=1)[2])
    with pytest.raises(PseudoLabelError, match=r"epoch_003\.h5.*modified"):
        labels["clip-0"]
    path.unlink()
    with pytest.raises(PseudoLabelError, match=r"epoch_003\.h5.*No such file"):
        labels.masks.any()


def test_verify_accepts_an_intact_file(path):
    PseudoLabels.open(path).verify()
    make_labels()[2].verify()
    make_labels()[2].with_attributes(delta_v=0.1).verify()


def without_checksum(file):
    values = file["response_min"][()]
    del file["response_min"]
    file["response_min"] = values


def of_another_type(file):
    values = file["response"][()]
    del file["response"]
    file.create_dataset("response", data=values.astype(np.float64), chunks=values.shape, fletcher32=True)


def without_axes(file):
    values = file["response"][()]
    del file["response"]
    file.create_dataset("response", data=values, chunks=values.shape, fletcher32=True)


def upside_down(file):
    file["response_min"][1] = 100


def miscounted(file):
    file["sounding_fraction"][4] = 0.25


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (without_checksum, "response_min.*checksums"),
        (of_another_type, "response.*float64.*float16"),
        (without_axes, "response.*clip, row, col"),
        (upside_down, "'clip-1'.*response_min.*response_max"),
        (miscounted, "'clip-4'.*sounding_fraction"),
    ],
)
def test_verify_finds_what_reading_does_not_require(path, harm, message):
    with edited(path) as file:
        harm(file)
    with pytest.raises(PseudoLabelError, match=message):
        PseudoLabels.open(path).verify()
