"""Compute the features of one shard: the work of one Dask task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from pipeline.common.config import EncoderSettings, ResNetSettings, Side
from pipeline.common.errors import FeatureError
from pipeline.common.files import fingerprint, storing
from pipeline.features.backbone import origin_of
from pipeline.features.store import FeatureWriter, read_header, verify_features
from pipeline.model.encoders import AudioVisualModel, build_model
from pipeline.model.inference import inference
from pipeline.shards.reader import ShardSet
from pipeline.shards.stamps import Entry, file_stamp

# Clips encoded at once; fixed for a kind of device, because the last bits of a feature depend on the size of its batch. On a CPU, the
# activations of more clips leave the cache: EfficientNet-Lite0 at 256 pixels takes a quarter longer with 16.
GROUP = {"cpu": 4, "cuda": 64}
_UNUSED = ResNetSettings(blocks=(1, 1, 1, 1), width=1)
_CHANGED = {
    "shard": "the shards changed",
    "visual_backbone": "the visual backbone changed",
    "visual_weights": "the weights of the visual backbone changed",
    "audio_backbone": "the audio backbone changed",
    "audio_weights": "the weights of the audio backbone changed",
}


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
    encoder : EncoderSettings
        With weights.
    sides : tuple of Side
        The encoders whose features are stored.
    views : int
    shard_digest : str
    backbones : tuple of (str, str)
        What `origin_of` returns for the encoders.
    device : str
    """

    path: Path
    shards: Path
    content: str
    shard: int
    encoder: EncoderSettings
    sides: tuple[Side, ...]
    views: int
    shard_digest: str
    backbones: tuple[tuple[str, str], ...]
    device: str

    @property
    def origin(self) -> dict[str, str]:
        """Attributes of the file, which say what the features were computed from."""
        return {"shard": self.shard_digest, **dict(self.backbones)}

    @property
    def fingerprint(self) -> str:
        """Hash of what determines the file's bytes, apart from the code and the device."""
        return fingerprint([self.origin, self.sides, self.views])


def compute_file(task: FeatureTask) -> Entry:
    """Compute and write the features of one shard; return the entry of the finished file.

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
    model = _model(task.encoder, task.sides, task.backbones).to(device)
    clips = _shards(task.shards, task.content)
    rows = clips.rows(task.shard)
    size = clips.image_size
    empty = np.zeros((1, size, size, 3), np.uint8), np.zeros((1, *clips.log_mel_shape), np.float32)
    encoded = encode(model, *empty, sides=task.sides, views=task.views, device=device)
    shapes = {side: features.shape[1:] for side, features in encoded.items()}
    ids = [clips.clip_ids[row] for row in rows]
    with (
        storing(task.path, FeatureError),
        FeatureWriter.create(task.path, clip_ids=ids, shapes=shapes, origin=task.origin) as file,
    ):
        group = GROUP[device.type]
        for start in range(0, len(rows), group):
            frames, log_mel = clips.read(rows[start : start + group])
            encoded = encode(model, frames, log_mel, sides=task.sides, views=task.views, device=device)
            for side, features in encoded.items():
                _check_range(task, side, ids[start:], features)
            file.append(encoded, log_mel)
    return entry_of(task)


def entry_of(task: FeatureTask) -> Entry:
    """Return the entry of a file that is finished. Raises FeatureError as `read_header`."""
    return Entry(task.path.name, task.fingerprint, read_header(task.path).digest, file_stamp(task.path))


def encode(
    model: AudioVisualModel,
    frames: np.ndarray,
    log_mel: np.ndarray,
    *,
    sides: Sequence[Side],
    views: int,
    device: torch.device,
) -> dict[Side, np.ndarray]:
    """Return the features of clips that are stored.

    Parameters
    ----------
    model : AudioVisualModel
    frames : np.ndarray (n, row, col, channel) uint8
    log_mel : np.ndarray (n, mel, time) float32
    sides : sequence of Side
    views : int
        2: also those of the mirrored frames.
    device : torch.device

    Returns
    -------
    dict of Side to np.ndarray float16
        visual (n, view, row, col, channel); audio (n, channel, mel, time).
    """
    features: dict[Side, np.ndarray] = {}
    if "visual" in sides:
        features["visual"] = _encode_frames(model, frames, views=views, device=device)
    if "audio" in sides:
        with inference():
            features["audio"] = model.audio_maps(torch.from_numpy(log_mel).to(device)).half().cpu().numpy()
    return features


def _encode_frames(model: AudioVisualModel, frames: np.ndarray, *, views: int, device: torch.device) -> np.ndarray:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).to(device)  # n H W c -> n c H W
    with inference():
        maps = [model.visual_features(pixels if view == 0 else pixels.flip(3)) for view in range(views)]
        # n v c h w -> n v h w c
        return np.asarray(torch.stack(maps, dim=1).half().permute(0, 1, 3, 4, 2).contiguous().cpu().numpy())


def why_stale(task: FeatureTask) -> str:
    """Return why an existing file cannot be kept; empty if it can. Reads all of it, to verify its checksums."""
    try:
        header = read_header(task.path)
        if set(header.shapes) != set(task.sides):
            return "the encoders whose features are stored changed"
        for name, value in task.origin.items():
            if header.origin[name] != value:
                return _CHANGED[name]
        if header.shapes["visual"][1] != task.views:
            return "`flip` changed"
        verify_features(task.path)
    except FeatureError:
        return "damaged"
    return ""


def frozen_model(encoder: EncoderSettings, sides: Sequence[Side]) -> AudioVisualModel:
    """Return a model with the backbones of some sides and their weights, in evaluation mode. Raises CheckpointError as `build_model`."""
    used = {side: getattr(encoder, side) for side in sides}
    model = build_model(EncoderSettings(**{"visual": _UNUSED, "audio": _UNUSED, **used}, embedding_dim=1)).eval()
    # With this memory format, a forward pass of EfficientNet-Lite0 takes a quarter less time on a CPU.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the annotations of torch
    return model


# A worker computes several files. The digests are part of the keys: what a path leads to may change.
@lru_cache(maxsize=1)
def _shards(folder: Path, content: str) -> ShardSet:
    return ShardSet.open(folder)


@lru_cache(maxsize=1)
def _model(
    encoder: EncoderSettings, sides: tuple[Side, ...], backbones: tuple[tuple[str, str], ...]
) -> AudioVisualModel:
    model = frozen_model(encoder, sides)
    found, expected = origin_of(encoder.model_dump(mode="json"), model, sides), dict(backbones)
    for side in sides:
        if found[f"{side}_weights"] != expected[f"{side}_weights"]:
            used = getattr(encoder, side)
            raise FeatureError(
                f"{used.backbone}: this worker finds other weights under {used.weights!r} than the stage"
            )
    return model


def _check_range(task: FeatureTask, side: Side, clip_ids: Sequence[str], features: np.ndarray) -> None:
    for clip_id, feature in zip(clip_ids, features, strict=False):
        if not np.isfinite(feature).all():
            raise FeatureError(
                f"{task.path}: clip {clip_id!r}: features of {getattr(task.encoder, side).backbone} exceed 65504, the range of float16; "
                f"use another backbone for encoder.{side}, or train it (`trainable`)"
            )
