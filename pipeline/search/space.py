"""The space of each row: which settings are tried, checked against the method's own settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pipeline.common.config import OptimizationSettings, Params, SearchRange, Space, TrainingSettings
from pipeline.common.config.base import validated
from pipeline.common.errors import SettingsError
from pipeline.common.project import INITIAL_RUN
from pipeline.methods.build import method_settings, settings_class

# Epochs are the budget. The others do not change what is trained, or are not numbers to choose by a score.
EXCLUDED = ("epochs", "until_converged", "keep_epochs", "label_file")


@dataclass(frozen=True)
class RowSpace:
    """What is searched for one row.

    Attributes
    ----------
    row : str
        A method, or "initialize".
    spaces : mapping of str to SearchRange or list
        By setting.
    whole : frozenset of str
        The settings with a range of whole numbers.
    first : mapping of str to value
        The values of params.yaml, which the first trial has.
    epochs : int
        Length of a trial.
    fixed : mapping of str to value
        The other settings of the row.
    """

    row: str
    spaces: Mapping[str, Space]
    whole: frozenset[str]
    first: Mapping[str, Any]
    epochs: int
    fixed: Mapping[str, Any]


def of_full_length(settings: TrainingSettings) -> TrainingSettings:
    """Return the settings without `until_converged`, so that all trials train all epochs: the same budget for each."""
    rule = "until_converged"
    methods = {row: {name: own[name] for name in own if name != rule} for row, own in settings.methods.items()}
    return settings.model_copy(update={"iterate": settings.iterate.model_copy(update={rule: None}), "methods": methods})


def with_values(settings: TrainingSettings, row: str, values: Mapping[str, Any]) -> TrainingSettings:
    """Return the settings of a trial: some values of one row replaced. Raises SettingsError for an invalid value."""
    settings = of_full_length(settings)
    if row == INITIAL_RUN:
        initialize = validated(OptimizationSettings, {**settings.initialize.model_dump(), **values}, INITIAL_RUN)
        return settings.model_copy(update={INITIAL_RUN: initialize})
    changed = settings.model_copy(
        update={"methods": {**settings.methods, row: {**settings.methods.get(row, {}), **values}}}
    )
    method_settings(changed, row)
    return changed


def row_settings(settings: TrainingSettings, row: str) -> OptimizationSettings:
    """Return all settings of a row. Raises SettingsError if it is unknown or a setting is invalid."""
    return settings.initialize if row == INITIAL_RUN else method_settings(settings, row)


def row_spaces(params: Params, dataset: str, rows: Iterable[str] = ()) -> list[RowSpace]:
    """Return the checked spaces of some rows of a dataset, the initialization first.

    Parameters
    ----------
    params : Params
    dataset : str
    rows : iterable of str
        Default: all that the block `search` lists. The initialization is always included if it is listed, because the other rows
        start from its winner.

    Raises
    ------
    SettingsError
        The dataset or a row has no space, a setting is unknown or excluded, or a value of the space or of params.yaml does not fit.
    """
    listed = params.search.spaces.get(dataset)
    if not listed:
        raise SettingsError(f"search.spaces: no entry for {dataset!r}; copy that of a similar dataset")
    if dataset not in params.training:
        raise SettingsError(f"search.spaces.{dataset}: no block training.{dataset}")
    chosen = list(rows) or list(listed)
    if unknown := [row for row in chosen if row not in listed]:
        close = _close(unknown[0], listed)
        raise SettingsError(f"search.spaces.{dataset}: no row {unknown[0]!r}; {close}")
    ordered = [row for row in listed if row == INITIAL_RUN] + [
        row for row in listed if row in chosen and row != INITIAL_RUN
    ]
    settings = of_full_length(params.training[dataset])
    return [_row_space(settings, row, listed[row], where=f"search.spaces.{dataset}.{row}") for row in ordered]


def _row_space(settings: TrainingSettings, row: str, spaces: Mapping[str, Space], *, where: str) -> RowSpace:
    if row != INITIAL_RUN and row not in settings.methods:
        raise SettingsError(f"{where}: no such entry of `methods`; {_close(row, [INITIAL_RUN, *settings.methods])}")
    kind = OptimizationSettings if row == INITIAL_RUN else settings_class(row)
    current = row_settings(settings, row)
    if row != INITIAL_RUN and current.epochs != settings.iterate.epochs:
        raise SettingsError(
            f"{where}: methods.{row} trains {current.epochs} epochs, other rows {settings.iterate.epochs}; all rows need the same budget"
        )
    if not spaces:
        raise SettingsError(f"{where}: no settings to search; list some, or remove the row")
    allowed = [name for name in kind.model_fields if name not in EXCLUDED]
    for name in spaces:
        if name in EXCLUDED:
            raise SettingsError(f"{where}: {name} is not searched: it is the budget, or does not change the result")
        if name not in allowed:
            raise SettingsError(f"{where}: no setting {name!r}; {_close(name, allowed)}")
    whole = frozenset(
        name for name, space in spaces.items() if isinstance(space, SearchRange) and _is_whole(kind, name)
    )
    for name, space in spaces.items():
        for value in _ends(space):
            try:
                with_values(settings, row, {name: value})
            except SettingsError as error:
                raise SettingsError(f"{where}: {error}") from None
        if not _contains(space, getattr(current, name)):
            raise SettingsError(
                f"{where}.{name}: {getattr(current, name)!r} of params.yaml is outside; widen the space"
            )
    return RowSpace(
        row=row,
        spaces=spaces,
        whole=whole,
        first={name: getattr(current, name) for name in spaces},
        epochs=current.epochs,
        fixed=current.model_dump(mode="json", exclude={*spaces, "keep_epochs"}),
    )


def _ends(space: Space) -> list[Any]:
    return [space.low, space.high] if isinstance(space, SearchRange) else list(space)


def _contains(space: Space, value: Any) -> bool:
    if isinstance(space, SearchRange):
        return isinstance(value, int | float) and space.low <= value <= space.high
    return value in space


def _is_whole(kind: type[OptimizationSettings], name: str) -> bool:
    annotation = kind.model_fields[name].annotation
    kinds = (annotation, *get_args(annotation))
    return int in kinds and float not in kinds


def _close(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = get_close_matches(word, known, n=3)
    return f"close: {', '.join(close)}" if close else f"there are {', '.join(known)}"
