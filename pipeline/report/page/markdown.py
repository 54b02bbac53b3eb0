"""Markdown of a section → HTML for the page. Raw HTML becomes text; tables scroll on their own on a narrow screen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from pipeline.common.text_table import MISSING

# A value followed by its interval in parentheses, which the page sets in small type.
_INTERVAL = re.compile(r'(<td class="num">(?:<strong>[^<]*</strong>)?[^<(]*) (\([^<)]*\))</td>')
_SYMBOL = re.compile("(δ)_([av])")
_ROW = re.compile(r"<tr>\n(.*?)</tr>", re.DOTALL)
_CELL = re.compile(r'<td class="num">(.*?)</td>')


def section_html(text: str, *, name: str) -> Markup:
    """Return a section's text as HTML.

    Parameters
    ----------
    text : str
        Markdown with tables. Raw HTML in it is shown as text; images are not loaded.
    name : str
        Accessible name of its tables; those after the first one get a number, too.
    """
    # Without raw HTML and images, text from a dataset can neither run nor load anything.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = markdown.parse(text)
    _mark_cells(tokens)
    html = markdown.renderer.render(tokens, markdown.options, {})
    html = _SYMBOL.sub(r"\1<sub>\2</sub>", html)
    html = _INTERVAL.sub(r"\1 <small>\2</small></td>", html)
    html = _ROW.sub(_fade_if_empty, html)
    # Landmarks need different names.
    names = (f"{name}, table {place}" if place > 1 else f"{name}, table" for place in count(1))
    opening = '<div class="scroll" role="region" tabindex="0" aria-label="{}">\n<table>'
    html = re.sub("<table>", lambda _: opening.format(escape(next(names))), html)
    return Markup(html.replace("</table>", "</table>\n</div>"))


def inline_html(text: str) -> Markup:
    """Return one line of Markdown as HTML without a paragraph around it."""
    return Markup(MarkdownIt("commonmark", {"html": False}).disable("image").renderInline(text))


def _mark_cells(tokens: Sequence[Token]) -> None:
    """Give cells classes instead of inline styles, which the page's policy forbids, and make each row's first cell a header."""
    first = False
    for token, content, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.type == "tr_open":
            first = True
        elif token.type in ("th_open", "td_open"):
            # The parser marks right-aligned columns, the numeric ones, with an inline style.
            numeric = bool(token.attrs.pop("style", None))
            if token.type == "th_open" and not content.content:
                token.tag = closing.tag = "td"  # the corner above the row headers names nothing
            elif token.type == "th_open":
                token.attrs["scope"] = "col"
            elif first:
                token.tag, token.attrs["scope"] = "th", "row"
            if numeric:
                token.attrs["class"] = "num"
        elif token.type == "td_close" and first:
            token.tag = "th"
        if token.type in ("th_close", "td_close"):
            first = False


def _fade_if_empty(row: re.Match[str]) -> str:
    cells = _CELL.findall(row[1])
    return row[0].replace("<tr>", '<tr class="none">', 1) if cells and set(cells) == {MISSING} else row[0]
