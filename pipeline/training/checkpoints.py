"""Checkpoints: ONE flat dict of tensors, numbers and strings, always loaded with `weights_only`.

Conventions
-----------
``model.pt`` is self-contained: weights as "model.NAME"; format_version, method, stage, seed, epoch, fingerprint, image_size, delta_v,
n_clips; and, as JSON, the settings `encoder`, `iteration` and `audio` and the list `classes`. It has no optimizer state and no
timestamps, so the same training gives the same bytes. ``state.pt`` adds the optimizer, the history, the device and, if there are any, the
teacher's weights as "teacher.NAME" and the scale of float16 losses as "scaler.NAME". It only exists while a run is unfinished. Reading compares the checksums in the file and rejects weights that are not finite.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.common.config import AudioSettings, Count, EncoderSettings, Fraction, Settings
from pipeline.common.errors import CheckpointError, PackageError, SoundspotError
from pipeline.common.files import write_bytes
from pipeline.common.reading import parse_json
from pipeline.methods.build import build_method, settings_class
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import AudioVisualModel, build_model
from pipeline.model.pretrained import load_tensors

FORMAT_VERSION = 2
DESCRIPTION = {
    "method": str, "stage": str, "seed": int, "epoch": int, "fingerprint": str, "image_size": int, "delta_v": float,
    "encoder": str, "iteration": str, "audio": str, "n_clips": int, "classes": str,
}  # fmt: skip
WEIGHTS = "model."
TEACHER = "teacher."
RERUN = "if it belongs to a run of this project, remove the run's folder and run its stage again"


class _Facts(Settings):
    """The entries that nothing else checks, with their ranges."""

    image_size: Count
    delta_v: Fraction
    n_clips: Count
    audio: AudioSettings
    classes: list[str]


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a flat dict atomically; the bytes depend only on the content.

    Parameters
    ----------
    path : Path
    content : mapping
        Tensors, numbers, strings, or lists of numbers by name.
    """
    # Pickle's output depends on which strings are the same object, and on the storage and memory format of tensors.
    canonical = {sys.intern(str(name)): _canonical(value) for name, value in content.items()}
    # Via memory, because torch.save writes the name of the file into it.
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **canonical}, buffer)
    write_bytes(path, buffer.getvalue())


def read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a flat dict. With `mmap`, a tensor is read when it is used.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, not a checkpoint, or of another format version; or, without `mmap`, a value is not finite.
    """
    content = load_tensors(path, advice=RERUN, mmap=mmap)
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format_version is {version}, this program reads {FORMAT_VERSION}; {RERUN}")
    return content


def model_content(model: AudioVisualModel, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of ``model.pt``: the description, whose keys must be DESCRIPTION, and the weights."""
    if set(description) != set(DESCRIPTION):
        raise ValueError(f"description must have the keys {tuple(DESCRIPTION)}, got {tuple(description)}")
    return {**description, **{WEIGHTS + name: value for name, value in model.state_dict().items()}}


def load_weights(model: AudioVisualModel, content: Mapping[str, Any], path: Path, *, prefix: str = WEIGHTS) -> None:
    """Copy the weights of a checkpoint into a model. Raises CheckpointError if they do not match."""
    weights = {name[len(prefix) :]: value for name, value in content.items() if name.startswith(prefix)}
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        mine, value = own.get(name), weights.get(name)
        if mine is None or not isinstance(value, Tensor) or (value.shape, value.dtype) != (mine.shape, mine.dtype):
            raise CheckpointError(f"{path}: its weights do not match its settings at {name!r}; {RERUN}")
    model.load_state_dict(weights)


def load_model(path: Path | str) -> TrainedModel:
    """Load a trained model, ready to localize.

    Parameters
    ----------
    path : Path or str
        ``model.pt``.

    Returns
    -------
    TrainedModel
        On the CPU and in evaluation mode, with the method that trained it. Its `description` has the other entries of the
        checkpoint, with `encoder`, `iteration` and `audio` as dicts and `classes` as a list.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or inconsistent.
    PackageError
        Its backbones require packages that are not installed.
    """
    path = Path(path)
    content = read_checkpoint(path)
    if missing := [name for name in DESCRIPTION if name not in content]:
        raise CheckpointError(f"{path}: no entry {missing[0]!r}: not a model of this program; {RERUN}")
    try:
        if wrong := [name for name, kind in DESCRIPTION.items() if not isinstance(content[name], kind)]:
            raise TypeError(f"{wrong[0]!r} is {content[wrong[0]]!r}")
        encoder = EncoderSettings.model_validate_json(content["encoder"])
        iteration = settings_class(content["method"]).model_validate_json(content["iteration"])
        method = build_method(content["method"], iteration)
        description = {name: content[name] for name in DESCRIPTION}
        description |= {
            name: parse_json(content[name], name, CheckpointError)
            for name in ("encoder", "iteration", "audio", "classes")
        }
        _Facts(**{name: description[name] for name in _Facts.model_fields})
        # All weights are in the checkpoint; the file of pretrained weights may no longer exist.
        with torch.random.fork_rng(devices=[]):
            model = build_model(encoder.without_weights)
            method.prepare(model, n_clips=description["n_clips"], classes=description["classes"])
    except PackageError:
        raise
    except (TypeError, ValueError, RuntimeError, RecursionError, SoundspotError) as error:
        raise CheckpointError(f"{path}: not a valid model ({' '.join(str(error).split())}); {RERUN}") from None
    load_weights(model, content, path)
    return TrainedModel(model.eval(), method, description)


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's state as "optimizer.NUMBER.NAME" entries."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{number}.{name}": value for number, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, content: Mapping[str, Any]) -> None:
    """Load entries from `flatten_optimizer` into a new optimizer with the same settings. Raises ValueError if they do not fit."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in content.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            if int(number) >= len(parameters) or not isinstance(value, Tensor):
                raise ValueError(f"{key!r} does not belong to a parameter")
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:
                # In the parameter's memory format: with another one, the last bit of an update could differ.
                value = torch.empty_like(parameter, requires_grad=False).copy_(value)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _canonical(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return sys.intern(value) if isinstance(value, str) else value
