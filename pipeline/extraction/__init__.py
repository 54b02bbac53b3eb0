"""Decode a split's clips into HDF5 shards (stage `extract`).

- `extract`: divides the clip list into shards, builds them in parallel on Dask, and lists unusable clips in ``rejects.csv``.
- `plan`: which clips are in which shard.
- `build_shard`: the work of one task. An interrupted run keeps its finished shards.
- `keep`: which shards of an earlier run are kept.
"""
