"""HDF5 shards: the extracted clips of a split, as training reads them.

`writer` defines the file format and writes a shard; `reader` verifies shards and reads all shards of a split as one array of clips,
`ShardSet`; `listing` tells whether a split is complete. Every byte is protected by a checksum, and equal input gives equal bytes.
`storage` writes files that are too large for memory, `chunks` reads clips from several threads, `jpeg` has the frames of compact shards,
and `stamps` tells cheaply that a finished file is unchanged.
"""

from pipeline.shards.reader import ShardSet

__all__ = ["ShardSet"]
