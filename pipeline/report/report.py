"""The report on a dataset: comparison tables, figures with their data, and one page that shows them.

A report is a list of `Section`. `markdown_page` renders it as ``index.md``, and `pipeline.report.page.page` as ``index.html``, with
interactive charts and galleries of clips. In the same folder are ``table.md`` and ``table.csv``, the paper's tables as
``table1`` and ``table2``, and for every figure NAME.png its numbers: NAME.csv or NAME.npz.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.common.files import write_text
from pipeline.common.text_table import printable
from pipeline.report.page.page import PAGE, headline, write_page
from pipeline.report.provenance import provenance
from pipeline.report.section import Section
from pipeline.report.sections.clusters import cluster_sections
from pipeline.report.sections.curves import success_section
from pipeline.report.sections.diagnostics import collapse_warnings, diagnostics_section, read_histories
from pipeline.report.sections.examples import ablation_section, epochs_section, methods_section
from pipeline.report.sections.paper_tables import paper_sections
from pipeline.report.sections.relation import relation_section
from pipeline.report.sections.retrieval import retrieval_section
from pipeline.report.sections.scores import comparison_section
from pipeline.report.source import Source


def write_report(source: Source) -> None:
    """Write the report on one dataset into `source.folder`.

    Raises
    ------
    EvaluationError
        Output of an earlier stage is missing, or was made from other clips.
    """
    histories = read_histories(source)
    sections = [
        comparison_section(source),
        methods_section(source),
        ablation_section(source),
        success_section(source),
        epochs_section(source),
        diagnostics_section(source, histories),
        relation_section(source),
        *cluster_sections(source),
        *paper_sections(source),
        retrieval_section(source),
    ]
    # A collapse comes first: it makes all scores meaningless.
    title, lead = source.card.title, " ".join([_lead(source), *collapse_warnings(histories)])
    write_text(source.folder / "index.md", markdown_page(title, lead, sections))
    write_page(
        source.folder / PAGE,
        title=title,
        lead=lead,
        tiles=headline(source),
        sections=sections,
        provenance=provenance(source),
        source=source,
    )


def markdown_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the report in Markdown, with figures and data linked by file name."""
    parts = [f"# {printable(title)}", lead]
    for section in sections:
        parts += [f"## {section.title}", section.markdown()]
        if section.figure:
            parts.append(f"![{section.title}]({section.figure})")
        if section.data:
            parts.append("Data: " + ", ".join(f"[{name}]({name})" for name in section.data))
    return "\n\n".join(parts) + "\n"


def _lead(source: Source) -> str:
    metrics, seeds = source.metrics[source.shown], source.seeds
    seed_note = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean over seeds {', '.join(map(str, seeds))}"
    return (
        f"{metrics['n_clips']} clips of the split `{source.split}`, protocol `{metrics['protocol']}`, success at cIoU ≥ "
        f"{metrics['threshold']:g}; models: {seed_note}. Data source: {source.card.source}."
    )
