"""Rendering of the report's HTML templates, which are in ``templates/`` next to this module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=PackageLoader("pipeline.report.page"),
    autoescape=True,
    # A misspelled name raises an error instead of rendering as an empty string.
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render_template(name: str, **values: Any) -> str:
    """Render a template. All values are escaped except `markupsafe.Markup`."""
    return _ENVIRONMENT.get_template(name).render(values)


def joined(names: Sequence[str]) -> str:
    """Return files of the template folder as they are, such as scripts, one after the other."""
    assert _ENVIRONMENT.loader is not None
    return "\n".join(_ENVIRONMENT.loader.get_source(_ENVIRONMENT, name)[0] for name in names)
