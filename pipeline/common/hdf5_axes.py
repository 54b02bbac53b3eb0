"""Named axes of HDF5 fields as netCDF has them, so that xarray opens the files as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import h5py

# How netCDF marks a dimension that has no coordinate values; xarray then makes no variable of it.
_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable. {:10d}"


def add_bare_dimension(file: h5py.File, name: str, length: int) -> h5py.Dataset:
    """Add a dimension without coordinate values; its dataset is returned for a caller that must keep it open."""
    dimension = file.create_dataset(name, shape=(length,), dtype="int8", track_times=False)
    dimension.make_scale(_BARE_DIMENSION.format(length))
    return dimension


def name_axes(datasets: Mapping[str, h5py.Dataset], axes: Mapping[str, Sequence[str]]) -> None:
    """Name the axes of fields.

    Parameters
    ----------
    datasets : mapping of str to h5py.Dataset
        The fields and the dimensions by name; a file is such a mapping.
    axes : mapping of str to sequence of str
        Field → the dimension of each of its axes.
    """
    for field, dimensions in axes.items():
        for number, dimension in enumerate(dimensions):
            datasets[field].dims[number].attach_scale(datasets[dimension])
