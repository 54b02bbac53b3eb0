"""Build a method and its settings from its name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pipeline.common.config import IterationSettings, TrainingSettings
from pipeline.common.errors import SettingsError
from pipeline.methods.base import Method
from pipeline.methods.registry import METHODS, MethodSpec


def method_spec(name: str) -> MethodSpec:
    """Return the registry's entry of a method. Raises SettingsError for an unknown name."""
    if name not in METHODS:
        raise SettingsError(f"unknown method {name!r}; available: {', '.join(METHODS)}")
    return METHODS[name]


def method_class(name: str) -> type[Any]:  # Any: the constructors take different switches
    """Return the class of a method. Raises SettingsError for an unknown name."""
    module, _, attribute = method_spec(name).kind.partition(":")
    kind: type[Any] = getattr(import_module(module), attribute)
    return kind


def settings_class(name: str) -> type[IterationSettings]:
    """Return the class of a method's settings. Raises SettingsError for an unknown name."""
    kind: type[IterationSettings] = method_class(name).Settings
    return kind


def method_settings(settings: TrainingSettings, name: str) -> IterationSettings:
    """Return the validated settings of one method. Raises SettingsError for an unknown method or an invalid setting."""
    return settings.method(name, settings_class(name), unread=method_class(name).unread(**method_spec(name).switches))


def check_temperature(settings: TrainingSettings, name: str) -> None:
    """Raise SettingsError if a row does not have the temperature of the row that it is compared with (`MethodSpec.temperature_of`)."""
    other = method_spec(name).temperature_of
    if other is None or other not in settings.methods:
        return
    own, expected = (method_settings(settings, each).temperature for each in (name, other))
    if own != expected:
        raise SettingsError(
            f"methods.{name}: temperature {own:g} is not that of {other!r}, {expected:g}, with which the row is compared; set it to "
            f"{expected:g}"
        )


def check_methods(settings: TrainingSettings) -> None:
    """Validate every entry of `methods` in params.yaml. Raises SettingsError like `method_settings`."""
    for name in settings.methods:
        method_settings(settings, name)


def build_method(name: str, settings: IterationSettings) -> Method:
    """Make a method from its settings. Raises SettingsError for an unknown name."""
    method: Method = method_class(name)(settings, **method_spec(name).switches)
    return method
