"""Named arrays on disk: equal bytes, named axes, lengths that agree."""

from __future__ import annotations

import numpy as np
import pytest
import xarray

from pipeline.common.hdf5 import ascii_ids, verify_arrays, write_arrays


def arrays():
    return {
        "clip_id": (("clip",), ascii_ids(["a", "bc"])),
        "cluster": (("clip",), np.int32([1, 0])),
        "center": (("cluster_number", "feature"), np.arange(6, dtype=np.float32).reshape(2, 3)),
    }


def test_xarray_opens_it_as_it_is(tmp_path):
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
    assert verify_arrays(path) == ({"method": "dsol", "epoch": 3}, ["a", "bc"])
    content = bytearray(path.read_bytes())
    place = bytes(content).index(arrays()["center"][1].tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError):
        verify_arrays(path)
