"""Read stored features: the clips of a split as one array, with features instead of frames.

See `pipeline.features.store` for the format. Damaged data is never returned: opening compares the digest of everything except features
and log-mels, and reading compares each with its CRC-32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.config import TrainingSettings
from pipeline.common.errors import FeatureError
from pipeline.common.hdf5 import read_errors
from pipeline.common.project import features_path, stage_name
from pipeline.features.backbone import origin_of
from pipeline.features.store import FEATURE, checksum, damaged, read_header, rerun
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.model.encoders import AudioVisualModel
from pipeline.shards.open_files import OpenFiles
from pipeline.shards.reader import ShardSet


class FeatureSet(ShardSet):
    """The clips of a `ShardSet`, with the features of a frozen visual backbone instead of frames. Created by `open_clips`.

    Everything that a model computes from a batch works with both: `AudioVisualModel.visual_features` passes features on.
    """

    def __init__(self, shards: ShardSet, folder: Path, headers: Sequence[Mapping[str, Any]]) -> None:
        self.__dict__.update(shards.__dict__)  # the same clips and log-mels
        self.folder = folder
        self._open_features = OpenFiles([FEATURE])
        self._feature_digests: list[str] = [header["digest"] for header in headers]
        self._feature_checksums: np.ndarray = np.concatenate([header["crc32"] for header in headers])
        self._log_mel_checksums: np.ndarray = np.concatenate([header["log_mel_crc32"] for header in headers])
        self._origin = {name: headers[0][name] for name in ("backbone", "weights")}
        self.n_views: int = headers[0]["shape"][1]
        self.feature_shape: tuple[int, int, int] = headers[0]["shape"][2:]

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
            if header["shard"] != shards.digests[shard] or header["clip_ids"] != clip_ids:
                raise FeatureError(f"{path}: computed from another shard than {shards.paths[shard]}; {rerun(folder)}")
            for name in ("backbone", "weights"):
                if header[name] != headers[0][name]:
                    raise FeatureError(f"{path}: computed with another {name} than the first file; {rerun(folder)}")
            if header["shape"][1:] != headers[0]["shape"][1:]:
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

        Raises
        ------
        FeatureError, ShardError
            A clip's data is damaged, or a file is missing; the message names the file and the clip.
        IndexError
            An index is out of range, or there are no features of mirrored frames.
        """
        feature = np.empty((len(indices), *self.feature_shape), dtype=np.float16)
        log_mel = np.empty((len(indices), *self.log_mel_shape), dtype=np.float32)
        views = np.zeros(len(indices), int) if mirrored is None else np.asarray(mirrored, int)
        if views.any() and self.n_views < 2:
            raise IndexError(f"{self.folder}: no features of mirrored frames")
        for position, index in enumerate(indices):
            self._read_features(int(index), int(views[position]), feature[position])
            self._read_log_mel(int(index), self._log_mel_checksums[index], log_mel[position])
        return feature, log_mel

    @property
    def content_digest(self) -> str:
        """Digest of the stored clips and features."""
        return hashlib.sha256("".join([super().content_digest, *self._feature_digests]).encode()).hexdigest()

    def close(self) -> None:
        """Close this process's files; `read` reopens them."""
        super().close()
        self._open_features.close()

    def check_model(self, encoders: AudioVisualModel, visual: Mapping[str, Any], where: Path) -> None:
        """Raise FeatureError if the features are not those of a model's visual backbone.

        Parameters
        ----------
        encoders : AudioVisualModel
        visual : mapping
            Settings of its visual backbone, as JSON.
        where : Path
            Folder or file of the model, for the message.
        """
        expected = origin_of(visual, encoders.visual)
        if differing := [name for name, value in self._origin.items() if value != expected[name]]:
            what = "settings" if "backbone" in differing else "weights"
            raise FeatureError(
                f"{where}: its visual backbone has other {what} than the one that computed the features in {self.folder}; run "
                f"`dvc repro -f -s {stage_name('features', self.folder)}`, then `dvc repro`"
            )

    def _read_features(self, index: int, view: int, feature: np.ndarray) -> None:
        shard, row = self._place(index)
        path = features_path(self.folder, shard)
        with read_errors(path, lambda reason: damaged(path, f"clip {self.clip_ids[index]!r}: {reason}")):
            (features,) = self._open_features(path)
            features.read_direct(feature, np.s_[row, view])
            if checksum(feature) != self._feature_checksums[index, view]:
                raise ValueError("does not match its checksum")


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
    if not settings.stores_features:
        return shards
    clips = FeatureSet.of(shards, features)
    if clips.n_views < n_views(settings, features.name):
        raise FeatureError(f"{features}: computed without mirrored frames, which `flip` requires; {rerun(features)}")
    return clips


def n_views(settings: TrainingSettings, split: str) -> int:
    """Return how many views of each frame are stored: 2 if training mirrors frames, otherwise 1."""
    return 2 if settings.augmentation.flip and split == TRAIN_SPLIT else 1
