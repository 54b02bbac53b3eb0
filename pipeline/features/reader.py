"""Read stored features: the clips of a split as one array, with features instead of frames, or of frames and log-mels.

See `pipeline.features.store` for the format. Damaged data is never returned: opening compares the digest of everything except features
and log-mels, and reading compares each with its CRC-32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.config import Side, TrainingSettings
from pipeline.common.errors import FeatureError
from pipeline.common.hdf5 import read_errors
from pipeline.common.project import features_path, stage_name
from pipeline.features.backbone import origin_of
from pipeline.features.store import Header, checksum, damaged, read_header, rerun
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.model.encoders import AudioVisualModel
from pipeline.shards.chunks import ChunkReader
from pipeline.shards.reader import ShardSet


class FeatureSet(ShardSet):
    """The clips of a `ShardSet`, with the features of a frozen visual backbone instead of frames. Created by `open_clips`.

    If the audio backbone is frozen, too, its features replace the log-mels. Everything that a model computes from a batch works with
    both: `AudioVisualModel.visual_features` and `audio_maps` pass features on.
    """

    def __init__(self, shards: ShardSet, folder: Path, headers: Sequence[Header]) -> None:
        self.__dict__.update(shards.__dict__)  # the same clips and log-mels
        self.folder = folder
        self.sides = tuple(headers[0].shapes)
        self._feature_chunks = ChunkReader()
        self._feature_offsets = {side: np.concatenate([h.offsets[side] for h in headers]) for side in self.sides}
        self._feature_digests = [header.digest for header in headers]
        self._feature_checksums = {side: np.concatenate([h.crc32[side] for h in headers]) for side in self.sides}
        self._log_mel_checksums: np.ndarray = np.concatenate([header.log_mel_crc32 for header in headers])
        self._backbones = _backbones(headers[0])
        self.feature_shapes = {side: shape[1:] for side, shape in headers[0].shapes.items()}
        self.n_views = self.feature_shapes["visual"][0]

    @classmethod
    def of(cls, shards: ShardSet, folder: Path) -> FeatureSet:
        """Open the features of shards.

        Raises
        ------
        FeatureError
            A file is missing or damaged, was computed from another shard, or differs from the others in its backbone or shape.
        """
        headers = [read_header(features_path(folder, shard)) for shard in range(len(shards.paths))]
        for shard, header in enumerate(headers):
            path, clip_ids = features_path(folder, shard), [shards.clip_ids[row] for row in shards.rows(shard)]
            if header.origin["shard"] != shards.digests[shard] or header.clip_ids != clip_ids:
                raise FeatureError(f"{path}: computed from another shard than {shards.paths[shard]}; {rerun(folder)}")
            if _backbones(header) != _backbones(headers[0]):
                raise FeatureError(f"{path}: computed with other backbones than the first file; {rerun(folder)}")
            if any(header.shapes[side][1:] != shape[1:] for side, shape in headers[0].shapes.items()):
                raise FeatureError(f"{path}: features of another shape than in the first file; {rerun(folder)}")
        return cls(shards, folder, headers)

    def read(self, indices: Sequence[int], mirrored: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Read clips in the given order.

        Parameters
        ----------
        indices : sequence of int
            Positions in `clip_ids`.
        mirrored : np.ndarray (n,) bool, optional
            Which clips to return with the features of the mirrored frame.

        Returns
        -------
        feature : np.ndarray, float16, shape (n, row, col, channel)
        log_mel : np.ndarray, float32, shape (n, mel, time)
            Or features of the audio backbone, float16, shape (n, channel, mel, time), if they are stored.

        Raises
        ------
        FeatureError, ShardError
            A clip's data is damaged, or a file is missing; the message names the file and the clip.
        IndexError
            An index is out of range, or there are no features of mirrored frames.
        """
        n, has_audio = len(indices), "audio" in self.sides
        feature = np.empty((n, *self.feature_shapes["visual"][1:]), dtype=np.float16)
        if has_audio:
            audio = np.empty((n, *self.feature_shapes["audio"]), dtype=np.float16)
        else:
            audio = np.empty((n, *self.log_mel_shape), dtype=np.float32)
        views = np.zeros(len(indices), int) if mirrored is None else np.asarray(mirrored, int)
        if views.any() and self.n_views < 2:
            raise IndexError(f"{self.folder}: no features of mirrored frames")
        for position, index in enumerate(indices):
            self._read_features("visual", int(index), (views[position],), feature[position])
            if has_audio:
                self._read_features("audio", int(index), (), audio[position])
            else:
                self._read_log_mel(int(index), self._log_mel_checksums[index], audio[position])
        return feature, audio

    @property
    def content_digest(self) -> str:
        """Digest of the stored clips and features."""
        return hashlib.sha256("".join([super().content_digest, *self._feature_digests]).encode()).hexdigest()

    def close(self) -> None:
        """Close this process's files; `read` reopens them."""
        super().close()
        self._feature_chunks.close()

    def check_model(self, encoders: AudioVisualModel, settings: Mapping[str, Any], where: Path) -> None:
        """Raise FeatureError if the features are not those of a model's backbones.

        Parameters
        ----------
        encoders : AudioVisualModel
        settings : mapping
            Their settings, as JSON.
        where : Path
            Folder or file of the model, for the message.
        """
        expected = origin_of(settings, encoders, self.sides)
        for name, value in self._backbones.items():
            if value != expected[name]:
                side, what = name.split("_")
                raise FeatureError(
                    f"{where}: its {side} backbone has other {'settings' if what == 'backbone' else what} than the one that computed "
                    f"the features in {self.folder}; run `dvc repro -f -s {stage_name('features', self.folder)}`, then `dvc repro`"
                )

    def _read_features(self, side: Side, index: int, within: tuple[int, ...], feature: np.ndarray) -> None:
        path = features_path(self.folder, self._shard_of(index))
        clip = f"clip {self.clip_ids[index]!r}: {side} features"
        with read_errors(path, lambda reason: damaged(path, f"{clip}: {reason}")):
            self._feature_chunks.read_into(path, self._feature_offsets[side][index][within], feature)
            if checksum(feature) != self._feature_checksums[side][index][within]:
                raise ValueError("do not match their checksum")


def open_clips(shards: ShardSet, features: Path, settings: TrainingSettings) -> ShardSet:
    """Return the clips of a split as training and evaluation read them: with stored features if the settings store them.

    Parameters
    ----------
    shards : ShardSet
    features : Path
        The split's folder of features.
    settings : TrainingSettings

    Raises
    ------
    FeatureError
        The features are missing, damaged, or computed from other shards or with other settings.
    """
    if not settings.stored_features:
        return shards
    clips = FeatureSet.of(shards, features)
    if clips.sides != settings.stored_features:
        stored, wanted = (" and ".join(sides) for sides in (clips.sides, settings.stored_features))
        raise FeatureError(
            f"{features}: has features of {stored}, the settings store those of {wanted}; {rerun(features)}"
        )
    if clips.n_views < n_views(settings, features.name):
        raise FeatureError(f"{features}: computed without mirrored frames, which `flip` requires; {rerun(features)}")
    return clips


def n_views(settings: TrainingSettings, split: str) -> int:
    """Return how many views of each frame are stored: 2 if training mirrors frames, otherwise 1."""
    return 2 if settings.augmentation.flip and split == TRAIN_SPLIT else 1


def _backbones(header: Header) -> dict[str, str]:
    return {name: value for name, value in header.origin.items() if name != "shard"}
