"""The systems of Table 1 and 2 by name. `variants` in params.yaml lists those to train.

A new one is a file beside this one, with a class that fulfils `interface.Method`, and an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.common.config import IterationSettings, TrainingSettings
from pipeline.common.errors import SettingsError
from pipeline.methods.attention import Attention
from pipeline.methods.base import Method
from pipeline.methods.contrastive import Contrastive
from pipeline.methods.dmc import Dmc
from pipeline.methods.dsol.method import Dsol
from pipeline.methods.iterative import Iterative
from pipeline.methods.mssl.method import MSSL, UnlabeledMSSL


@dataclass(frozen=True)
class Entry:
    """A row of the tables: the class of its method, and the switches that make it this row.

    Attributes
    ----------
    kind : type
        Of a Method; mypy has no type for a class whose constructor takes switches.
    switches : mapping
    trains_as : str or None
        A row that trains to the same weights, bit by bit, under equal settings: the two differ in how a map is read.
    """

    kind: type[Any]
    switches: Mapping[str, Any] = field(default_factory=dict)
    trains_as: str | None = None


METHODS: dict[str, Entry] = {
    "attention": Entry(Attention),
    "dmc": Entry(Dmc),
    "mssl": Entry(MSSL, {"stage_two": True}),
    "mssl_stage1": Entry(MSSL),
    "mssl_stage1_unlabeled": Entry(UnlabeledMSSL),
    "mssl_stage1_eq2": Entry(MSSL, {"eq2": True}, "mssl_stage1"),
    "mssl_stage1_unlabeled_eq2": Entry(UnlabeledMSSL, {"eq2": True}, "mssl_stage1_unlabeled"),
    "mssl_stage1_eq2_eq1": Entry(MSSL, {"eq2": True, "eq1": True}, "mssl_stage1"),
    "mssl_stage1_unlabeled_eq2_eq1": Entry(UnlabeledMSSL, {"eq2": True, "eq1": True}, "mssl_stage1_unlabeled"),
    "dsol": Entry(Dsol, {"two_stage": False}),
    "dsol_two_stage": Entry(Dsol, {"two_stage": True}),
    "initial": Entry(Contrastive),
    "itr": Entry(Iterative, {"intra": False, "inter": False}),
    "itr_intra": Entry(Iterative, {"intra": True, "inter": False}),
    "itr_inter": Entry(Iterative, {"intra": False, "inter": True}),
    "iterative": Entry(Iterative, {"intra": True, "inter": True}),
}


def method_entry(name: str) -> Entry:
    """Return the entry of a method. Raises SettingsError for a name that is not in METHODS."""
    if name not in METHODS:
        raise SettingsError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def settings_class(name: str) -> type[IterationSettings]:
    """Return the class of a method's settings. Raises SettingsError for a name that is not in METHODS."""
    kind: type[IterationSettings] = method_entry(name).kind.Settings
    return kind


def method_settings(settings: TrainingSettings, name: str) -> IterationSettings:
    """Return the validated settings of one method. Raises SettingsError: no such method, or a setting is wrong."""
    return settings.method(name, settings_class(name))


def check_methods(settings: TrainingSettings) -> None:
    """Validate every entry of `methods` in params.yaml. Raises SettingsError as `method_settings` does."""
    for name in settings.methods:
        method_settings(settings, name)


def build_method(name: str, settings: IterationSettings) -> Method:
    """Make a method from its settings. Raises SettingsError for a name that is not in METHODS."""
    entry = method_entry(name)
    method: Method = entry.kind(settings, **entry.switches)
    return method
