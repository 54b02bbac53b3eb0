"""Rendering of the report's HTML templates, which are in ``templates/`` next to this module."""

from __future__ import annotations

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


def template_text(name: str) -> str:
    """Return a file of the template folder as it is, such as a style sheet."""
    assert _ENVIRONMENT.loader is not None
    return _ENVIRONMENT.loader.get_source(_ENVIRONMENT, name)[0]
