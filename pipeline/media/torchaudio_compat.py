"""Import torchaudio even if its compiled extension cannot be loaded.

A torchaudio built for CUDA raises OSError on import if torch is CPU-only, although the transforms used here are plain
PyTorch. In that case the extension's package is replaced by a stub that reports "not available", and the import is
retried. Nothing else in the project imports torchaudio.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def load_torchaudio() -> ModuleType:
    """Import torchaudio, with or without its compiled extension.

    Returns
    -------
    module
        torchaudio; its ``functional`` and ``transforms`` work either way.

    Raises
    ------
    ImportError
        torchaudio is not installed, or cannot be imported even without its extension.
    """
    try:
        return importlib.import_module("torchaudio")
    except OSError:
        # The failed import leaves half-initialized modules behind, which the retry would reuse.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _absent_extension()
        return importlib.import_module("torchaudio")


def _absent_extension() -> ModuleType:
    """Return a stand-in for ``torchaudio._extension`` with the flags that the rest of torchaudio reads."""
    stub = ModuleType("torchaudio._extension")
    flags: dict[str, Any] = {
        "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
        "_IS_ALIGN_AVAILABLE": False,
        "fail_if_no_align": lambda function: function,
    }
    for name, value in flags.items():
        setattr(stub, name, value)
    return stub
