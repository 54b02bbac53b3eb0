"""Response maps of a scored split on disk, so that any rule can score them later without the model.

``maps.h5`` holds, with the clip as first axis: ``clip_id`` fixed-length bytes; ``response`` float32 (clip, row, col),
the raw responses of each frame to its own sound, before any normalization; ``shuffled_response`` likewise, to the sound
of another clip, and ``shuffled_clip_id``, whose sound that was. Attributes: ``format_version``, the ``split``, ``seed``
of the model, ``shards``, the fingerprint of the clips, ``normalization`` (empty, or the maps' own: see `ResponseMaps`). Equal
input gives equal bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import h5py
import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.common.files import write_bytes
from pipeline.scoring.protocols import Normalization, Protocol

FORMAT_VERSION = 3
_CLIPS_PER_CHUNK = 256
_READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError)


@dataclass(frozen=True)
class ResponseMaps:
    """Raw response maps of one model on one split.

    Attributes
    ----------
    clip_ids : list of str
    response, shuffled_response : np.ndarray (clip, row, col) float32
        As the method makes them, of Eq. 1 unless it has its own; to the clip's own sound, and to that of another clip.
    shuffled_clip_ids : list of str
        Whose sound each frame was given for `shuffled_response`; never the clip's own.
    split : str
        That the clips belong to.
    seed : int
        Of the training run.
    shards : str
        Fingerprint of the scored shards.
    normalization : str or None
        How the method defines its maps, where that is not the scoring protocol's own normalization.
    """

    clip_ids: list[str]
    response: np.ndarray
    shuffled_response: np.ndarray
    shuffled_clip_ids: list[str]
    split: str
    seed: int
    shards: str
    normalization: Normalization | None = None

    def rule(self, protocol: Protocol) -> Protocol:
        """Return the protocol by which these maps are scored and drawn: with their own normalization, if they have one."""
        return replace(protocol, normalization=self.normalization) if self.normalization else protocol


def write_maps(path: Path, maps: ResponseMaps) -> None:
    """Write `maps`, whole or not at all."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["seed"] = maps.seed
        texts = {"split": maps.split, "shards": maps.shards, "normalization": maps.normalization or ""}
        for name, text in texts.items():
            file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", max(1, len(text.encode("utf-8")))))
        for name, ids in (("clip_id", maps.clip_ids), ("shuffled_clip_id", maps.shuffled_clip_ids)):
            values = np.array([clip_id.encode("ascii") for clip_id in ids], dtype=np.bytes_)
            file.create_dataset(name, data=values, track_times=False)
        for name, values in (("response", maps.response), ("shuffled_response", maps.shuffled_response)):
            chunks = (min(_CLIPS_PER_CHUNK, len(values)), *values.shape[1:])
            file.create_dataset(name, data=values.astype(np.float32), chunks=chunks, fletcher32=True, track_times=False)
    write_bytes(path, buffer.getvalue())


def read_maps(path: Path) -> ResponseMaps:
    """Read and check ``maps.h5``.

    Raises
    ------
    EvaluationError
        The file is missing, damaged, or of another format version.
    """
    if not path.exists():
        raise EvaluationError(f"{path}: no response maps; run `dvc repro evaluate`")
    try:
        with h5py.File(path, "r", locking=False) as file:
            version = file.attrs["format_version"]
            if version != FORMAT_VERSION:
                raise ValueError(f"format version {version}, this program reads {FORMAT_VERSION}")
            ids = {name: [i.decode("ascii") for i in file[name][()]] for name in ("clip_id", "shuffled_clip_id")}
            arrays = {name: file[name][()] for name in ("response", "shuffled_response")}
            if {len(values) for values in (*ids.values(), *arrays.values())} != {len(ids["clip_id"])}:
                raise ValueError("its fields differ in length")
            normalization = np.bytes_(file.attrs["normalization"]).decode("ascii")
            if normalization not in ("", *get_args(Normalization)):
                raise ValueError(f"unknown normalization {normalization!r}")
            return ResponseMaps(
                clip_ids=ids["clip_id"],
                response=arrays["response"],
                shuffled_response=arrays["shuffled_response"],
                shuffled_clip_ids=ids["shuffled_clip_id"],
                split=np.bytes_(file.attrs["split"]).decode("utf-8"),
                seed=int(file.attrs["seed"]),
                shards=np.bytes_(file.attrs["shards"]).decode("ascii"),
                normalization=cast(Normalization, normalization) if normalization else None,
            )
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise EvaluationError(f"{path}: not usable ({reason}); run `dvc repro evaluate`") from None
