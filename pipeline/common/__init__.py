"""The bottom layer: what every other package uses and what depends on none of them.

Settings (`config`), errors, atomic file writing (`files`), HDF5 helpers, keyed seeding, the console, Dask tasks
(`cluster`), and the paths of a project (`project`).
"""
