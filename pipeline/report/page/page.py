"""The report as one self-contained HTML file, ``index.html``, that works without a network.

Sections' Markdown becomes HTML; raw HTML in it is shown as text. The page's own script draws charts and galleries from JSON
embedded in the page. Titles, labels, clip ids and paths come from datasets and are not trusted: jinja2 escapes them in the
markup, and the script inserts them as text only. A Content-Security-Policy allows only that script, by its hash, and only
resources inside the file. The page has no timestamp, so the same results give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from PIL import Image

from pipeline.common.files import write_text
from pipeline.evaluation.labels import label_of
from pipeline.figures.heatmap import heatmap_colors
from pipeline.report.page.galleries import scored_gallery, training_gallery
from pipeline.report.page.markdown import inline_html, section_html
from pipeline.report.page.media import data_uri
from pipeline.report.page.templating import render_template, template_text
from pipeline.report.section import Section
from pipeline.report.source import INITIAL, Source

PAGE = "index.html"
FIGURE_QUALITY = 88
_GALLERIES = {"maps": ("scored", scored_gallery), "epochs": ("training", training_gallery)}
_TITLES = {"maps": "Scored clips", "epochs": "Training clips, epoch by epoch"}
_SHORT = {"curves": "Curves", "maps": "Scored clips", "epochs": "Training clips", "relation": "Pseudo-labels"}
_IDS = {"curves": "curves", "relation": "relation", "maps": "scored", "epochs": "training"}


class Tile(NamedTuple):
    """One number at the top of the page."""

    label: str
    value: str
    note: str
    metric: str


def write_page(
    path: Path,
    *,
    title: str,
    lead: str,
    tiles: Sequence[Tile],
    sections: Sequence[Section],
    source: Source,
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        ``index.html``.
    title, lead : str
        Plain text; the lead may be Markdown.
    tiles : sequence of Tile
    sections : sequence of Section
        Those of ``index.md``, in the same order. One gallery replaces all figures of scored clips, and links their files.
    source : Source
    """
    charts: dict[str, Any] = {}
    galleries: dict[str, Any] = {}
    parts: list[dict[str, Any]] = []
    for number, section in enumerate(sections, start=1):
        kind = section.kind
        if kind in _GALLERIES:
            name, make = _GALLERIES[kind]
            # Figures 4 and 5 show the same clips, which are in the gallery once.
            if name in galleries:
                next(part for part in parts if part["kind"] == kind)["data"] += _files(section)
                continue
            galleries[name] = make(source)
        elif section.chart is not None:
            charts[kind] = asdict(section.chart)
        parts.append(_part(section, source, number))
    data = {
        "palette": base64.b64encode(heatmap_colors().tobytes()).decode("ascii"),
        "charts": charts,
        "galleries": galleries,
    }
    write_text(path, render(title=title, lead=lead, tiles=tiles, parts=parts, data=data))


def render(
    *, title: str, lead: str, tiles: Sequence[Tile], parts: Sequence[Mapping[str, Any]], data: Mapping[str, Any]
) -> str:
    """Return the page's HTML. `parts` fill the template; `data` is embedded as JSON for the script."""
    # Read verbatim, because the policy allows exactly these texts by their hash.
    style, script = template_text("report.css"), template_text("report.js")
    return render_template(
        "report.html",
        title=title,
        lead=inline_html(lead),
        tiles=tiles,
        parts=parts,
        galleries=data["galleries"],
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=Markup(json_for_script(data)),
    )


def json_for_script(data: Any) -> str:
    """Return JSON that is safe inside a script element: no character in it can end the element."""
    # In JSON these characters occur only inside strings, where the escapes mean the same.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def headline(source: Source) -> list[Tile]:
    """Return scores for the top of the page: shown variant, `initial`, shuffled audio, best content-free baseline.

    They are success rates, or the quadrant accuracy of mosaics.
    """
    name, metrics, content_free = source.shown, source.metrics, source.content_free
    key, metric = "success_rate", "Success rate"
    if "quadrant_accuracy" in metrics[name]:
        key, metric = "quadrant_accuracy", "Quadrant accuracy"
    chosen: list[tuple[str, Mapping[str, Any], str]] = [
        (label_of(name), metrics[name], ""),
        (f"{label_of(name)}, shuffled audio", metrics[name], "shuffled_"),
    ]
    if INITIAL in metrics and name != INITIAL:
        chosen.insert(1, (label_of(INITIAL), metrics[INITIAL], ""))
    if content_free:
        # The best baseline, picked in hindsight: the bar that a model has to clear.
        best = max(content_free, key=lambda row: content_free[row][key])
        chosen.append((f"best content-free baseline: {label_of(best)}", content_free[best], ""))
    tiles = []
    for label, values, audio in chosen:
        rate, low, high = (100 * values[f"{audio}{key}{end}"] for end in ("", "_low", "_high"))
        tiles.append(Tile(label, f"{rate:.1f}%", f"{low:.1f}–{high:.1f}", metric))
    return tiles


def _part(section: Section, source: Source, number: int) -> dict[str, Any]:
    """Return a section as the template needs it."""
    kind = section.kind
    figure = ""
    if section.figure and not kind:
        figure = _figure(source.folder / section.figure)
    return {
        "id": _IDS.get(kind, f"part{number}"),
        "kind": kind,
        "title": _TITLES.get(kind, section.title),
        "short": _SHORT.get(kind) or section.title.split(":")[0].split(" (")[0],
        "text": section_html(section.text, name=section.title),
        "figure": figure,
        "data": _files(section),
        "seed": source.seed if len(source.seeds) > 1 else None,
    }


def _files(section: Section) -> list[str]:
    """Return the files to link: the figure at full size, and the numbers."""
    return [*([section.figure] if section.figure else []), *section.data]


def _figure(path: Path) -> str:
    """Return a figure as a data URI: as JPEG, which is much smaller than PNG when it contains photographs."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(buffer, "JPEG", quality=FIGURE_QUALITY, optimize=True)
    return data_uri("image/jpeg", buffer.getvalue())


def _hash(text: str) -> str:
    """Return the source expression that allows an inline style or script in the policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
