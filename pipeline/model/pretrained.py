"""Load published weights from a local file.

The file is a torchvision ResNet state dict: a flat mapping of names to tensors of any floating type. The classifier (`fc.*`) is
ignored. `num_batches_tracked` may be missing, as in files from before 2018. Files are loaded with `weights_only`, so one that would
run code is rejected.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.common.access import raise_if_access_error
from pipeline.common.errors import CheckpointError


def load_tensors(path: Path, *, advice: str, mmap: bool = False) -> dict[str, Any]:
    """Load a file that contains one flat dict, with `weights_only`.

    Parameters
    ----------
    path : Path
    advice : str
        What to do about a bad file; ends the error message.
    mmap : bool
        Map the file into memory: a tensor is read when it is used.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would run code, or does not contain a dict.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {advice}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise_if_access_error(path, error)
        # torch's message would advise to disable weights_only.
        raise CheckpointError(f"{path}: not readable: damaged, or contains more than tensors; {advice}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: contains a {type(content).__name__}, not a dict of tensors; {advice}")
    return content


def weights_advice(setting: str) -> str:
    """Return what to do about published weights that are missing or do not match."""
    return f"set {setting} to a torchvision ResNet state dict of the same shape, or to null for random weights"


def load_pretrained(module: nn.Module, path: Path, *, setting: str) -> None:
    """Copy published weights into a ResNet.

    Parameters
    ----------
    module : nn.Module
        Its state dict has torchvision's names.
    path : Path
    setting : str
        Setting that contains the path, for messages.

    Raises
    ------
    CheckpointError
        The file cannot be loaded, or does not match the module; the message names the first key that differs.
    """
    advice = weights_advice(setting)
    content = load_tensors(path, advice=advice)
    weights = {name: value for name, value in content.items() if not str(name).startswith("fc.")}
    own = module.state_dict()
    for name, target in own.items():
        if name not in weights and name.endswith("num_batches_tracked"):
            weights[name] = target
        value = weights.get(name)
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: no tensor {name!r}, which the encoder requires; {advice}")
        if value.shape != target.shape:
            shapes = f"{tuple(value.shape)}, but the encoder's is {tuple(target.shape)}"
            raise CheckpointError(f"{path}: {name!r} has shape {shapes}; {advice}")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {name!r} contains values that are not finite; {advice}")
    unknown = [str(name) for name in weights if name not in own]
    if unknown:
        raise CheckpointError(f"{path}: {unknown[0]!r} is not part of the encoder; {advice}")
    module.load_state_dict(weights)
