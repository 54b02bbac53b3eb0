"""The systems of Table 1 and 2 by name. `variants` in params.yaml lists those to train.

A new one is a file beside this one, with a class that fulfils `interface.Method`, and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pipeline.config import IterationSettings
from pipeline.errors import SettingsError
from pipeline.methods.contrastive import Contrastive
from pipeline.methods.interface import Method
from pipeline.methods.iterative import Iterative

METHODS: dict[str, Callable[[IterationSettings], Method]] = {
    "initial": Contrastive,
    "itr": partial(Iterative, intra=False, inter=False),
    "itr_intra": partial(Iterative, intra=True, inter=False),
    "itr_inter": partial(Iterative, intra=False, inter=True),
    "iterative": partial(Iterative, intra=True, inter=True),
}


def build_method(name: str, settings: IterationSettings) -> Method:
    """Make a method from its settings. Raises SettingsError for a name that is not in METHODS."""
    if name not in METHODS:
        raise SettingsError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name](settings)
