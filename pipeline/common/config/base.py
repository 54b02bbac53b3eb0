"""The base class of all settings, their types, and reading them from YAML with errors that name the key and the value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline.common.errors import SettingsError
from pipeline.common.reading import read_yaml

VARIANT = (
    "variant:"  # prefix of the tags of a union, which pydantic puts into paths of settings, and messages leave out
)
_MAX_FAULTS, _MAX_SHOWN = 10, 200  # faults and characters of a value in one message


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(f"kernel size {number} is even; use an odd one, so that each cell has a center")
    return number


def _even(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd; use an even FFT length, so that there is a bin at half the sample rate")
    return number


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
FourCounts = tuple[Count, Count, Count, Count]
EvenCount = Annotated[int, Field(ge=2), AfterValidator(_even)]
OddCount = Annotated[int, Field(ge=1), AfterValidator(_odd)]


class Settings(BaseModel):
    """Base class of all settings: frozen, strictly typed, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Model = TypeVar("Model", bound=Settings)


def read_settings(path: Path) -> Any:
    """Return the content of a YAML file. Raises SettingsError if it is missing or is not YAML."""
    if not path.exists():
        raise SettingsError(f"{path}: no such file; run from the project root, or import the dataset first")
    return read_yaml(path, SettingsError)


def validated(model: type[Model], value: Any, where: str) -> Model:
    """Return the mapping as an instance of `model`. Raises SettingsError, which names up to ten faults and `where` they are."""
    if not isinstance(value, dict):
        raise SettingsError(f"{where}: expected a mapping of settings, got {type(value).__name__}")
    try:
        # YAML has lists where the models have tuples. Strict validation accepts that from JSON, but not from Python values.
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        faults = [_explain(e, where) for e in error.errors()]
        more = f"; and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise SettingsError("; ".join(faults[:_MAX_FAULTS]) + more) from None


def _explain(error: Any, where: str) -> str:
    key = ".".join(part for part in map(str, error["loc"]) if not part.startswith(VARIANT))
    if error["type"] == "value_error":
        return f"{where}: {key}{': ' if key else ''}{error['ctx']['error']}"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown setting {key!r}; check its spelling"
    if error["type"] == "missing":
        return f"{where}: setting {key!r} is missing"
    message = f"{where}: setting {key!r}: {error['msg']}, got {repr(error['input'])[:_MAX_SHOWN]}"
    if isinstance(error["input"], str) and _is_number(error["input"]):
        message += " (a string; in YAML a number like 1.0e-4 needs the decimal point)"
    return message


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
