"""The report as one self-contained HTML file, ``index.html``, that works without a network.

Sections' Markdown becomes HTML; raw HTML in it is shown as text. The page's own script draws charts and galleries from JSON
embedded in the page. Titles, labels, clip ids and paths come from datasets and are not trusted: jinja2 escapes them in the
markup, and the script inserts them as text only. A Content-Security-Policy allows only that script, by its hash, and only
resources inside the file. The same results, code and run give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from pipeline.common.files import write_text
from pipeline.common.seeding import evenly_spaced
from pipeline.evaluation.labels import label_of
from pipeline.figures.heatmap import HIGHEST_OPACITY, heatmap_rgba
from pipeline.report.page.encoding import array_base64
from pipeline.report.page.galleries import scored_gallery, training_gallery
from pipeline.report.page.markdown import inline_html, section_html
from pipeline.report.page.media import frame_image
from pipeline.report.page.templating import joined, render_template
from pipeline.report.section import Grid, Section
from pipeline.report.source import INITIAL, Source

PAGE = "index.html"
STYLES = ("report.css",)
SCRIPTS = ("base.js", "maps.js", "gallery.js", "chart.js", "report.js")
HERO_CLIPS = 6
_GALLERIES = {"maps": ("scored", scored_gallery), "epochs": ("training", training_gallery)}
_TITLES = {"maps": "Scored clips", "epochs": "Training clips, epoch by epoch"}
_SHORT = {
    "curves": "Curves",
    "maps": "Scored clips",
    "epochs": "Training clips",
    "relation": "Pseudo-labels",
    "training": "Training",
}
_IDS = {"curves": "curves", "relation": "relation", "training": "loss", "maps": "scored", "epochs": "training"}


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
    provenance: Sequence[tuple[str, str]],
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
    provenance : sequence of (str, str)
        Names and values for the footer.
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
        "palette": array_base64(heatmap_rgba()),
        "charts": charts,
        "galleries": galleries,
    }
    scored = galleries.get("scored")
    html = render(
        title=title,
        lead=inline_html(lead),
        tiles=tiles,
        parts=parts,
        six=evenly_spaced(len(scored["clips"]), HERO_CLIPS) if scored else [],
        provenance=provenance,
        data=data,
    )
    write_text(path, html)


def render(*, data: Mapping[str, Any], **values: Any) -> str:
    """Return the page's HTML. `values` fill the template; `data` is embedded as JSON for the script."""
    # Read verbatim, because the policy allows exactly these texts by their hash.
    style, script = joined(STYLES), joined(SCRIPTS)
    return render_template(
        "report.html",
        **values,
        galleries=data["galleries"],
        opacity=round(100 * HIGHEST_OPACITY),
        style=Markup(style),
        script=Markup(script),
        style_hash=source_hash(style),
        script_hash=source_hash(script),
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
    return {
        "id": _IDS.get(kind, f"part{number}"),
        "kind": kind,
        "title": _TITLES.get(kind, section.title),
        "short": _SHORT.get(kind) or section.title.split(":")[0].split(" (")[0],
        "text": section_html(section.text, name=section.title),
        "folded": [{"title": title, "text": section_html(text, name=title)} for title, text in section.folded],
        "grid": section.grid and _grid(section.grid),
        "data": _files(section),
        "seed": source.seed if len(source.seeds) > 1 else None,
    }


def _grid(grid: Grid) -> dict[str, Any]:
    rows = [
        [{"image": frame_image(frame), "clip_id": clip_id, "caption": caption} for frame, clip_id, caption in row]
        for row in grid.rows
    ]
    return {"columns": grid.columns, "rows": rows}


def _files(section: Section) -> list[str]:
    """Return the files to link: the figure at full size, and the numbers."""
    return [*([section.figure] if section.figure else []), *section.data]


def source_hash(text: str) -> str:
    """Return the source expression that allows an inline style or script in the policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
