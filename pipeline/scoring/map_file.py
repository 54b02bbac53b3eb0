"""Response maps of a scored split on disk: any protocol can score them later without the model.

Conventions
-----------
Fields of ``maps.h5``, clip axis first: ``clip_id`` (fixed-length bytes); ``response`` float32 (clip, row, col), raw
responses of each frame to its own audio, before any normalization; ``shuffled_response``, the same with the audio of
another clip; ``shuffled_clip_id``, the clip that this audio belongs to. Attributes: ``format_version``, ``split``,
``seed`` of the model, ``shards`` (fingerprint of the clips), and ``normalization`` (empty, or the method's own: see
`ResponseMaps`). Equal input gives equal bytes. Reading compares the SHA-256 of the whole file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.common.hdf5 import (
    ascii_ids,
    create_file,
    read_array,
    read_attributes,
    read_ids,
    reading,
    write_attributes,
)
from pipeline.scoring.protocols import Normalization, ScoringProtocol

FORMAT_VERSION = 4
_CLIPS_PER_CHUNK = 256


@dataclass(frozen=True)
class ResponseMaps:
    """Raw response maps of one model on one split.

    Attributes
    ----------
    clip_ids : list of str
    response, shuffled_response : np.ndarray (clip, row, col) float32
        Before normalization, from Eq. 1 or the method's own definition; with the clip's own audio, and with the audio
        of another clip.
    shuffled_clip_ids : list of str
        The clip whose audio each frame got in `shuffled_response`; never the clip itself.
    split : str
        The split of the clips.
    seed : int
        Seed of the training run.
    shards : str
        Fingerprint of the scored shards.
    normalization : str or None
        Normalization that the method defines for its maps, if it replaces the protocol's.
    """

    clip_ids: list[str]
    response: np.ndarray
    shuffled_response: np.ndarray
    shuffled_clip_ids: list[str]
    split: str
    seed: int
    shards: str
    normalization: Normalization | None = None

    def rule(self, protocol: ScoringProtocol) -> ScoringProtocol:
        """Return `protocol`, with the normalization of these maps if they define one."""
        return replace(protocol, normalization=self.normalization) if self.normalization else protocol


def write_maps(path: Path, maps: ResponseMaps) -> None:
    """Write `maps` atomically."""
    attributes = {
        "format_version": FORMAT_VERSION,
        "seed": maps.seed,
        "split": maps.split,
        "shards": maps.shards,
        "normalization": maps.normalization or "",
    }
    with create_file(path) as file:
        write_attributes(file, attributes)
        for name, ids in (("clip_id", maps.clip_ids), ("shuffled_clip_id", maps.shuffled_clip_ids)):
            file.create_dataset(name, data=ascii_ids(ids), track_times=False)
        for name, values in (("response", maps.response), ("shuffled_response", maps.shuffled_response)):
            # Checksums of the chunks reveal damage when the file is read.
            chunks = (min(_CLIPS_PER_CHUNK, len(values)), *values.shape[1:])
            file.create_dataset(name, data=values.astype(np.float32), chunks=chunks, fletcher32=True, track_times=False)


def read_maps(path: Path) -> ResponseMaps:
    """Read and check ``maps.h5``.

    Raises
    ------
    EvaluationError
        The file is missing, damaged, or of another format version.
    """
    if not path.exists():
        raise EvaluationError(f"{path}: no response maps; run `dvc repro evaluate`")

    def damaged(reason: str) -> EvaluationError:
        return EvaluationError(f"{path}: not usable ({reason}); run `dvc repro evaluate`")

    with reading(path, damaged, sealed=True) as file:
        attributes = read_attributes(file)
        version = attributes["format_version"]
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}, expected {FORMAT_VERSION}")
        ids = {name: read_ids(file[name]) for name in ("clip_id", "shuffled_clip_id")}
        arrays = {name: read_array(file[name]) for name in ("response", "shuffled_response")}
        if {*map(len, ids.values()), *map(len, arrays.values())} != {len(ids["clip_id"])}:
            raise ValueError("fields differ in length")
        if not all(np.isfinite(values).all() for values in arrays.values()):
            raise ValueError("responses that are not finite")
        normalization = attributes["normalization"]
        if normalization not in ("", *get_args(Normalization)):
            raise ValueError(f"unknown normalization {normalization!r}")
        return ResponseMaps(
            clip_ids=ids["clip_id"],
            response=arrays["response"],
            shuffled_response=arrays["shuffled_response"],
            shuffled_clip_ids=ids["shuffled_clip_id"],
            split=attributes["split"],
            seed=attributes["seed"],
            shards=attributes["shards"],
            normalization=cast(Normalization, normalization) if normalization else None,
        )
