"""The block `search` of params.yaml: which settings `soundspot search` tries, for which rows, and how often."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.common.config.base import VARIANT, Count, Settings

_RANGE_TAG, _CHOICES_TAG = f"{VARIANT}range", f"{VARIANT}choices"


class SearchRange(Settings):
    """All numbers between two ends, both included; whole numbers if the setting is one."""

    low: int | float
    high: int | float
    log: bool = False  # draw the logarithm uniformly: for settings that matter by factors, such as a learning rate

    @model_validator(mode="after")
    def _is_a_range(self) -> SearchRange:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} has no logarithm; set a positive one, or remove `log`")
        return self


def _kind(space: Any) -> str:
    return _CHOICES_TAG if isinstance(space, list | tuple) else _RANGE_TAG


Choice = bool | int | float | str | None
Choices = Annotated[list[Choice], Field(min_length=1)]
Space = SearchRange | list[Choice]
_Space = Annotated[
    Annotated[SearchRange, Tag(_RANGE_TAG)] | Annotated[Choices, Tag(_CHOICES_TAG)], Discriminator(_kind)
]


class SearchSettings(Settings):
    """The same budget for every row."""

    trials: Count = 16  # per row; the first has the settings of params.yaml
    seed: Annotated[int, Field(ge=0)] = 0  # of the training runs and of the sampler
    spaces: dict[str, dict[str, dict[str, _Space]]] = Field(default_factory=dict)  # by dataset, row and setting
