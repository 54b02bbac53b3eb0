"""Import timm, and the torchvision that it needs, even if torchvision's compiled part cannot be loaded.

A torchvision built for CUDA cannot load its compiled part beside a CPU-only torch, and then fails because two operators are missing
that no backbone uses. They are declared here without an implementation, and the import is repeated. Nothing else in the project imports
torchvision or timm.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from types import ModuleType

import torch

from pipeline.common.errors import PackageError

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def load_timm() -> ModuleType:
    """Import timm.

    Raises
    ------
    PackageError
        timm or torchvision is not installed, or cannot be imported.
    """
    try:
        _load_torchvision()
        return importlib.import_module("timm")
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PackageError(
            f"this backbone requires timm and torchvision ({reason}); pip install -e '.[backbones]'"
        ) from None


def _load_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        # The failed import leaves half-initialized modules behind, which the retry would reuse.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in _OPERATORS:
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f"torchvision::{name}", _SCHEMA)
        importlib.import_module("torchvision")
