"""How large the pipeline's files will be, from their formats alone.

Conventions
-----------
Sizes are in bytes, sides in pixels (frames) or cells (maps). What a format adds to its arrays (indices, checksums,
attributes) is small and was measured; the tests compare each function with a real file.
"""

from __future__ import annotations

import math

from torch import nn

SHARD_ID_BYTES = 128
_SHARD_CLIP_EXTRA = 75  # chunk indices and checksums of a clip's four fields
_SHARD_EXTRA = 12_500
CHUNK_CLIPS = 256  # rows of a chunk in artifacts and map files; the last one is stored whole
_LABELS_EXTRA, _LABELS_CHUNK_EXTRA = 11_010, 150
_MAPS_EXTRA = 4_000
_TENSOR_EXTRA = 310  # a tensor's name, header and alignment in torch's archive


def map_side(image_size: int, *, cell_stride: int) -> int:
    """Return the side of a response map, cells: each stride rounds up."""
    return math.ceil(image_size / cell_stride)


def shard_bytes(n_clips: int, *, image_size: int, log_mel_shape: tuple[int, int]) -> int:
    """Return the size of one shard of `n_clips` clips."""
    n_mels, n_frames = log_mel_shape
    clip = SHARD_ID_BYTES + 3 * image_size**2 + 4 * n_mels * n_frames + 8
    return n_clips * (clip + _SHARD_CLIP_EXTRA) + _SHARD_EXTRA


def split_bytes(n_clips: int, *, clips_per_shard: int, image_size: int, log_mel_shape: tuple[int, int]) -> int:
    """Return the size of all shards of a split."""
    full, rest = divmod(n_clips, clips_per_shard)
    sizes = [shard_bytes(n, image_size=image_size, log_mel_shape=log_mel_shape) for n in (clips_per_shard, rest)]
    return full * sizes[0] + (sizes[1] if rest else 0)


def pseudo_label_bytes(n_clips: int, *, side: int, embedding_dim: int, id_bytes: int) -> int:
    """Return the size of one epoch's pseudo-labels: maps and embeddings in float16, three float32 values.

    Parameters
    ----------
    n_clips : int
    side : int
        Of a response map, cells.
    embedding_dim : int
    id_bytes : int
        Length of the longest clip id.
    """
    extra = _LABELS_EXTRA + math.ceil(n_clips / CHUNK_CLIPS) * _LABELS_CHUNK_EXTRA
    return _chunked(n_clips, id_bytes + 2 * side**2 + 2 * embedding_dim + 12) + extra


def maps_bytes(n_clips: int, *, side: int, id_bytes: int) -> int:
    """Return the size of the response maps of a scored split: own and shuffled audio, float32."""
    return _chunked(n_clips, 2 * 4 * side**2) + 2 * n_clips * id_bytes + _MAPS_EXTRA


def model_bytes(model: nn.Module) -> int:
    """Return the size of ``model.pt``: all weights and buffers that are kept."""
    return sum(value.numel() * value.element_size() + _TENSOR_EXTRA for value in model.state_dict().values())


def state_bytes(model: nn.Module) -> int:
    """Return the size of ``state.pt``: the model, and two moments and a step of AdamW for each parameter."""
    moments = sum(2 * value.numel() * value.element_size() + 3 * _TENSOR_EXTRA for value in model.parameters())
    return model_bytes(model) + moments


def _chunked(n_clips: int, row_bytes: int) -> int:
    chunk = min(CHUNK_CLIPS, n_clips)
    return math.ceil(n_clips / chunk) * chunk * row_bytes if n_clips else 0
