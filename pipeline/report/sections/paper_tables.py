"""Tables 1 and 2 of the paper for the current dataset: our scores, next to the paper's if it reports this dataset.

Conventions
-----------
Metrics are flat mappings of fractions (`pipeline.scoring.summary`). Tables show percent with one decimal, CSV files fractions.
A cell reads ``55.6 ± 5.3 (52.9–58.1)``: mean and standard deviation (n - 1) over the seeds, and in parentheses the bootstrap 95%
interval over clips; with one seed there is no deviation. Mosaics add the quadrant accuracy. Rows are in the paper's order. A row
without a trained model shows the paper's values, and is left out if it has none. Below them are variants that the paper's table does not have, then the content-free baselines.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.files import write_csv, write_text
from pipeline.common.text_table import MISSING, Table
from pipeline.evaluation.labels import LABELS, label_of
from pipeline.methods.registry import METHODS
from pipeline.report.page.templating import render_template
from pipeline.report.published import TABLE_1, TABLE_2, Published
from pipeline.report.section import Section
from pipeline.report.sections.emphasis import bold_best
from pipeline.report.source import Source
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.summary import SHUFFLED
from pipeline.scoring.tables import interval, normalization_note, quadrant_note

METRICS = ("success_rate", "auc")
OF_MOSAICS = {"quadrant_accuracy": "quadrant", f"{SHUFFLED}quadrant_accuracy": "quadrant, shuffled audio"}
ROWS_1 = {"random": "Random", **{name: spec.table_1 for name, spec in METHODS.items() if spec.table_1}}
# Table 1 only: the systems of Table 1 are others' work.
SHARED = (
    " All rows that we trained start from the same initialization with Eq. 3, and share encoders and optimizer, unlike those of the "
    "paper."
)
UNTOUCHED = " “Initialized, untouched” is that initialization."
ROWS_2 = {name: spec.table_2 for name, spec in METHODS.items() if spec.table_2}


@dataclass(frozen=True)
class PaperRow:
    """One row of a table of the paper.

    Attributes
    ----------
    label : str
        As in the paper.
    name : str
        The variant or content-free baseline.
    metrics : Mapping[str, Any]
        Flat scores, fractions; empty if it was not trained.
    published : tuple of float, or None
        Success rate and AUC in percent.
    """

    label: str
    name: str
    metrics: Mapping[str, Any]
    published: tuple[float, float] | None = None


def paper_rows(
    labels: Mapping[str, str],
    metrics: Mapping[str, Mapping[str, Any]],
    content_free: Mapping[str, Mapping[str, Any]],
    *,
    published: Published | None = None,
    further: Sequence[str] = (),
) -> list[PaperRow]:
    """Return the rows of one table.

    Parameters
    ----------
    labels : mapping of str to str
        Variant or content-free baseline → its label, in the paper's order.
    metrics : mapping of str to mapping
        Trained variant → flat scores.
    content_free : mapping of str to mapping
        Content-free baseline → flat scores; those in `labels` are not repeated below.
    published : Published, optional
        The paper's values for the same dataset.
    further : sequence of str
        Variants to add below the paper's rows.
    """
    own = {**content_free, **metrics}
    printed = published.rows if published else {}
    rows = [
        PaperRow(label, name, own.get(name, {}), printed.get(name))
        for name, label in labels.items()
        if name in own or name in printed
    ]
    below = [*further, *(name for name in content_free if name not in labels)]
    return [*rows, *(PaperRow(label_of(name), name, own[name]) for name in below)]


def paper_table(rows: Sequence[PaperRow], *, threshold: float, published: bool) -> Table:
    """Return the table as text cells; `published` adds the paper's columns, `threshold` is that of the success rate."""
    names = (f"cIoU@{threshold:g}", "AUC")
    further = _of_mosaics(rows)
    header = ("", *names, *(f"{name}, paper" for name in names if published), *(OF_MOSAICS[key] for key in further))
    cells = []
    for row in rows:
        printed = (MISSING, MISSING) if row.published is None else tuple(f"{value:.1f}" for value in row.published)
        own, below = ([_cell(row.metrics, key) for key in keys] for keys in (METRICS, further))
        cells.append((row.label, *own, *(printed if published else ()), *below))
    return Table(header, tuple(cells))


def seed_deviation(metrics: Mapping[str, Any], key: str) -> float | None:
    """Return the standard deviation (n - 1) of a metric over the seeds, a fraction; None with fewer than two seeds."""
    values = metrics.get(f"{key}_seeds", ())
    return statistics.stdev(values) if len(values) > 1 else None


def write_paper_csv(path: Path, rows: Sequence[PaperRow]) -> None:
    """Write one line per row; values are fractions, or empty if missing.

    Columns: ``row``, ``name`` (of the variant), then for ``success_rate`` and ``auc`` the value, ``_low``, ``_high``
    (interval over clips), ``_sd`` (over seeds) and ``_paper``. Mosaics add ``quadrant_accuracy`` and
    ``shuffled_quadrant_accuracy``, without ``_paper``.
    """
    lines = []
    for row in rows:
        line: dict[str, Any] = {"row": row.label, "name": row.name}
        for key in (*METRICS, *_of_mosaics(rows)):
            deviation = seed_deviation(row.metrics, key)
            line |= {key + end: row.metrics.get(key + end, "") for end in ("", "_low", "_high")}
            line[f"{key}_sd"] = "" if deviation is None else deviation
            if key in METRICS:
                # Rounding removes float noise: percent with one decimal has three digits as a fraction.
                printed = row.published and round(row.published[METRICS.index(key)] / 100, 4)
                line[f"{key}_paper"] = "" if printed is None else printed
        lines.append(line)
    write_csv(path, list(lines[0]), [list(line.values()) for line in lines])


def paper_sections(source: Source) -> list[Section]:
    """Write ``table1`` and ``table2``, each as ``.md``, ``.csv`` and ``.html``, and return their sections."""
    metrics, content_free = source.metrics, source.content_free
    further = [name for name in metrics if name not in ROWS_1 and name not in ROWS_2]
    evaluation = source.card.evaluation
    rule = (source.split, evaluation.threshold)
    sections = []
    for number, title, labels, values in (
        (1, "Table 1: comparison with other systems", ROWS_1, TABLE_1),
        (2, "Table 2: ablation", ROWS_2, TABLE_2),
    ):
        published = values.get(source.manifest.name)
        if published and (rule != ("test", published.threshold) or evaluation.protocol not in published.protocols):
            # Scores of other clips or under another rule are not comparable with ours.
            published = None
        rows = paper_rows(labels, metrics, content_free, published=published, further=further if number == 1 else ())
        table = paper_table(rows, threshold=evaluation.threshold, published=published is not None)
        text = _explanation(source, published, {row.name: row.metrics for row in rows})
        if number == 1:
            text += SHARED + (UNTOUCHED if "untouched" in metrics else "")
        stem = f"table{number}"
        whole = bold_best(table).markdown()
        write_text(source.folder / f"{stem}.md", f"{text}\n\n{whole}")
        write_paper_csv(source.folder / f"{stem}.csv", rows)
        write_text(
            source.folder / f"{stem}.html",
            render_template("table.html", title=f"{source.card.title}. {title}", text=text, table=table),
        )
        data = tuple(f"{stem}{ending}" for ending in (".md", ".csv", ".html"))
        trained = [row for row in rows if row.metrics]
        shown = bold_best(paper_table(trained, threshold=evaluation.threshold, published=published is not None))
        folded = [] if trained == rows else [("With the paper's rows that are not trained", whole.strip())]
        sections.append(Section(title, f"{text}\n\n{shown.markdown().strip()}", data=data, folded=folded))
    return sections


def _of_mosaics(rows: Sequence[PaperRow]) -> list[str]:
    return [key for key in OF_MOSAICS if any(key in row.metrics for row in rows)]


def _cell(metrics: Mapping[str, Any], key: str) -> str:
    """Return ``55.6 ± 5.3 (52.9–58.1)``, ``55.6 (52.9–58.1)`` for one seed, or a dash."""
    cell = interval(metrics, key)
    deviation = seed_deviation(metrics, key)
    return cell if deviation is None else cell.replace(" (", f" ± {100 * deviation:.1f} (", 1)


def _explanation(source: Source, published: Published | None, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    several = len(source.seeds) > 1
    spread = f"mean ± standard deviation over seeds {', '.join(map(str, source.seeds))}" if several else "one seed"
    own = normalization_note(metrics, get_protocol(source.card.evaluation.protocol).normalization, labels=LABELS)
    return (
        f"Scores on the split {source.split} under the dataset card's protocol {source.card.evaluation.protocol}, in percent: "
        f"{spread}; in parentheses the bootstrap 95% interval over clips. Random maps and the last rows are content-free "
        "baselines, which use neither frame nor audio. "
        + (
            "The paper's columns show its printed values; a dash means that there is none. "
            f"Its models were trained on {published.trained_on}, ours on {len(source.train_shards):,}."
            if published
            else "The paper reports no values for this dataset, split, protocol and threshold, so rows that are not trained "
            "are left out."
        )
        + "".join(f" {note}" for note in (quadrant_note(source.metrics[source.shown]), own) if note)
    )
