"""HDF5 helpers: equal bytes, named axes, checked lengths and checksums, and ids of the right type."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray

from pipeline.common.errors import PseudoLabelError
from pipeline.common.hdf5 import (
    ascii_ids,
    create_file,
    open_file,
    read_attributes,
    read_errors,
    read_ids,
    verify_arrays,
    write_arrays,
    write_attributes,
)
from tests.support.mutations import edited


def arrays():
    return {
        "clip_id": (("clip",), ascii_ids(["a", "bc"])),
        "cluster": (("clip",), np.int32([1, 0])),
        "center": (("cluster_number", "feature"), np.arange(6, dtype=np.float32).reshape(2, 3)),
    }


def test_xarray_opens_the_file_directly(tmp_path):
    write_arrays(tmp_path / "a.h5", arrays(), {"method": "dsol", "epoch": 3})
    with xarray.open_dataset(tmp_path / "a.h5", engine="h5netcdf") as found:
        assert dict(found.sizes) == {"clip": 2, "cluster_number": 2, "feature": 3}
        assert found["clip_id"].values.astype(str).tolist() == ["a", "bc"]
        np.testing.assert_array_equal(found["center"], arrays()["center"][1])
        assert int(found.attrs["epoch"]) == 3


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_arrays(tmp_path / name, arrays(), {"method": "dsol"})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_an_axis_has_one_length(tmp_path):
    with pytest.raises(ValueError, match="axis 'clip' has 3 entries, another array has 2"):
        write_arrays(tmp_path / "a.h5", {**arrays(), "more": (("clip",), np.zeros(3))}, {})
    assert not (tmp_path / "a.h5").exists()


def test_a_flipped_byte_is_found(tmp_path):
    path = tmp_path / "a.h5"
    write_arrays(path, arrays(), {"method": "dsol", "epoch": 3})
    assert verify_arrays(path, PseudoLabelError) == ({"method": "dsol", "epoch": 3}, ["a", "bc"])
    content = bytearray(path.read_bytes())
    place = bytes(content).index(arrays()["center"][1].tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(PseudoLabelError, match="checksum"):
        verify_arrays(path, PseudoLabelError)


@pytest.mark.parametrize(
    "harm", ["zeroed chunk and checksum", "0000 to FFFF", "attribute", "axis", "other program", "no seal"]
)
def test_what_fletcher32_does_not_see_is_found(tmp_path, harm):
    path = tmp_path / "a.h5"
    write_arrays(path, {**arrays(), "zero": (("clip",), np.int32([0, 5]))}, {"method": "dsol", "epoch": 3})
    with h5py.File(path) as file:
        chunk = file["zero" if harm == "0000 to FFFF" else "center"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    if harm == "zeroed chunk and checksum":
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    elif harm == "0000 to FFFF":
        content[chunk.byte_offset : chunk.byte_offset + 2] = b"\xff\xff"
    elif harm == "no seal":
        content[:512] = bytes(512)
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        file["zero"][()], file["center"][()]  # HDF5 itself reads all of it without an error
        if harm == "attribute":
            file.attrs["epoch"] = 4
        elif harm == "axis":
            file["cluster"].dims[0].label = "row"
        elif harm == "other program":
            file["center"][1, 1] = 7
    with pytest.raises(PseudoLabelError, match="checksum"):
        verify_arrays(path, PseudoLabelError)


def test_a_shape_beyond_what_is_stored_allocates_nothing(tmp_path):
    path = tmp_path / "a.h5"
    write_arrays(path, arrays(), {})
    with edited(path) as file:
        del file["clip_id"]
        file.create_dataset("clip_id", shape=(2**50,), dtype="S128", chunks=(1,))
    with pytest.raises(PseudoLabelError, match=r"clip_id has shape \(1125899906842624,\)"):
        verify_arrays(path, PseudoLabelError)


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("a\nb"), UnicodeDecodeError("ascii", b"", 0, 1, "c"), MemoryError()]
)
def test_any_error_of_reading_becomes_one_line(tmp_path, error):
    with pytest.raises(PseudoLabelError) as caught, read_errors(tmp_path, PseudoLabelError):
        raise error
    assert "\n" not in str(caught.value)
    assert str(caught.value)


def test_attributes_come_back_as_python_values(tmp_path):
    attributes = {"stage": "train", "fingerprint": "", "epoch": 3, "delta_v": 0.5}
    with create_file(tmp_path / "a.h5") as file:
        write_attributes(file, attributes)
    with open_file(tmp_path / "a.h5") as file:
        found = read_attributes(file)
    assert found == attributes
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in attributes.items()
    }


def test_ids_of_another_type_are_refused(tmp_path):
    with create_file(tmp_path / "a.h5") as file:
        file["clip_id"] = [1, 2]
    with open_file(tmp_path / "a.h5") as file, pytest.raises(ValueError, match="clip_id is int64"):
        read_ids(file["clip_id"])


def test_a_block_that_raises_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), create_file(tmp_path / "a.h5"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
