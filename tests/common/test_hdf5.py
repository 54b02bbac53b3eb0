"""HDF5 helpers: equal bytes, named axes, checked lengths and checksums, and ids of the right type."""

from __future__ import annotations

import numpy as np
import pytest
import xarray

from pipeline.common.errors import PseudoLabelError
from pipeline.common.hdf5 import (
    ascii_ids,
    create_file,
    open_file,
    read_attributes,
    read_ids,
    verify_arrays,
    write_arrays,
    write_attributes,
)


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
