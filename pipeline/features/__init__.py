"""Features of frozen backbones, computed once and stored beside the shards (stage `features`).

`store` defines the file format, writes and verifies it. `reader` has `FeatureSet`: the clips of a split with features instead of
frames. `backbone` identifies the frozen nets. `compute` fills a folder in parallel on Dask, `build_file` is the work of one task, and
`nothing` is for settings that store no features.
"""
