"""Compute the features of one shard: the work of one Dask task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from pipeline.common.config import BackboneSettings, EncoderSettings, ResNetSettings
from pipeline.common.errors import FeatureError
from pipeline.features.backbone import origin_of
from pipeline.features.store import FeatureWriter, read_header, verify_features
from pipeline.model.encoders import AudioVisualModel, build_model
from pipeline.model.inference import inference
from pipeline.shards.reader import ShardSet

# Clips encoded at once; fixed for a kind of device, because the last bits of a feature depend on the size of its batch. On a CPU, the
# activations of more clips leave the cache: EfficientNet-Lite0 at 256 pixels takes a quarter longer with 16.
GROUP = {"cpu": 4, "cuda": 64}
_NO_AUDIO = ResNetSettings(blocks=(1, 1, 1, 1), width=1)  # only the visual encoder is used
_CHANGED = {"shard": "the shards changed", "backbone": "the backbone changed", "weights": "its weights changed"}


@dataclass(frozen=True)
class FeatureTask:
    """Everything that a worker needs to compute the features of one shard.

    Attributes
    ----------
    path : Path
    shards : Path
        Folder of the shards.
    content : str
        Digest of all its shards.
    shard : int
        Number of the shard.
    visual : BackboneSettings
    views : int
    shard_digest, backbone, weights : str
        What the features are computed from, see `origin`.
    device : str
    """

    path: Path
    shards: Path
    content: str
    shard: int
    visual: BackboneSettings
    views: int
    shard_digest: str
    backbone: str
    weights: str
    device: str

    @property
    def origin(self) -> dict[str, str]:
        """Attributes of the file, which say what the features were computed from."""
        return {"shard": self.shard_digest, "backbone": self.backbone, "weights": self.weights}


def compute_file(task: FeatureTask) -> None:
    """Compute and write the features of one shard.

    Raises
    ------
    FeatureError
        The file cannot be written, the weights are not those of the task, or a feature exceeds the range of float16.
    ShardError
        The shard is damaged.
    """
    device = torch.device(task.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # one core per task, also on workers of an external cluster
    model = _model(task.visual, task.weights).to(device)
    clips = _shards(task.shards, task.content)
    rows = clips.rows(task.shard)
    size = clips.image_size
    _, *shape = encode(model, np.zeros((1, size, size, 3), np.uint8), views=task.views, device=device).shape
    ids = [clips.clip_ids[row] for row in rows]
    with (
        storing(task.path),
        FeatureWriter.create(task.path, clip_ids=ids, shape=tuple(shape), origin=task.origin) as file,
    ):
        group = GROUP[device.type]
        for start in range(0, len(rows), group):
            frames, log_mel = clips.read(rows[start : start + group])
            features = encode(model, frames, views=task.views, device=device)
            for clip_id, feature in zip(ids[start:], features, strict=False):
                if not np.isfinite(feature).all():
                    raise FeatureError(
                        f"{task.path}: clip {clip_id!r}: features of {task.visual.backbone} exceed 65504, the range of float16; "
                        "use another backbone, or train it (`trainable`)"
                    )
            file.append(features, log_mel)


def encode(model: AudioVisualModel, frames: np.ndarray, *, views: int, device: torch.device) -> np.ndarray:
    """Return the features of frames and, for two views, of the mirrored frames.

    Parameters
    ----------
    model : AudioVisualModel
    frames : np.ndarray (n, row, col, channel) uint8
    views : int
    device : torch.device

    Returns
    -------
    np.ndarray (n, view, row, col, channel) float16
    """
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).to(device)  # n H W c -> n c H W
    with inference():
        maps = [model.visual_features(pixels if view == 0 else pixels.flip(3)) for view in range(views)]
        # n v c h w -> n v h w c
        return np.asarray(torch.stack(maps, dim=1).half().permute(0, 1, 3, 4, 2).contiguous().cpu().numpy())


def why_stale(task: FeatureTask) -> str:
    """Return why an existing file cannot be kept; empty if it can. Reads all of it, to verify its checksums."""
    try:
        header = read_header(task.path)
        for name, value in task.origin.items():
            if header[name] != value:
                return _CHANGED[name]
        if header["shape"][1] != task.views:
            return "`flip` changed"
        verify_features(task.path)
    except FeatureError:
        return "damaged"
    return ""


def frozen_model(visual: BackboneSettings) -> AudioVisualModel:
    """Return a model with a visual backbone and its weights, in evaluation mode. Raises CheckpointError as `build_model` does."""
    return build_model(EncoderSettings(visual=visual, audio=_NO_AUDIO, embedding_dim=1)).eval()


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Convert a failure to write under `path` into a FeatureError that tells the user what to do."""
    try:
        yield
    except OSError as error:
        raise FeatureError(
            f"{path}: cannot be written ({error.strerror or error}); free disk space or fix the permissions, and rerun: "
            "finished files are kept"
        ) from None


# A worker computes several files. The digests are part of the keys: what a path leads to may change.
@lru_cache(maxsize=1)
def _shards(folder: Path, content: str) -> ShardSet:
    return ShardSet.open(folder)


@lru_cache(maxsize=1)
def _model(visual: BackboneSettings, weights: str) -> AudioVisualModel:
    model = frozen_model(visual)
    if origin_of(visual.model_dump(mode="json"), model.visual)["weights"] != weights:
        raise FeatureError(
            f"{visual.backbone}: this worker finds other weights under {visual.weights!r} than the stage"
        )
    return model
