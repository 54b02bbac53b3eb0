"""Packages that only some commands need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from pipeline.common.errors import PackageError


def load_package(name: str, *, purpose: str, extra: str) -> ModuleType:
    """Import a module of a package that an extra of setup.cfg installs.

    Raises
    ------
    PackageError
        It cannot be imported; the message names the purpose, such as "the search", and the extra.
    """
    try:
        return import_module(name)
    except ImportError as error:
        reason = " ".join(str(error).split())[:200]
        raise PackageError(f"{purpose} requires {name} ({reason}); pip install -e '.[{extra}]'") from None
