"""Comparison of all rows under each scoring rule."""

from __future__ import annotations

from pipeline.common.files import write_text
from pipeline.common.text_table import Table
from pipeline.evaluation.labels import LABELS
from pipeline.report.section import Section
from pipeline.report.sections.emphasis import bold_best, merge_equal_columns
from pipeline.report.source import Source
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.tables import (
    Row,
    comparison,
    normalization_note,
    per_seed,
    quadrant_note,
    rules,
    with_shuffled,
    write_comparison_csv,
)

RULE_TITLES = {"": "The dataset card's protocol", "median_": "The median rule", "fixed_": "A fixed threshold of 0.5"}
# The mean cIoU and the mean IoU hardly differ from the AUC, so they are folded.
MAIN = ("success_rate", "auc", "pointing_accuracy", "quadrant_accuracy")


def comparison_section(source: Source) -> Section:
    """Write ``table.md`` and ``table.csv``: every metric of every row under each rule."""
    models = [row for name in source.ordered for row in with_shuffled(name, source.metrics[name])]
    rows = [*models, *(Row(name, values) for name, values in source.content_free.items())]
    protocol = get_protocol(source.card.evaluation.protocol)
    parts = [
        f"Scores on the split `{source.split}`, in percent, with the bootstrap 95% interval over clips; the best of a column is bold. "
        "*Shuffled audio* is the model of the row above, given the audio of another clip. The last rows are content-free baselines.",
        quadrant_note(source.metrics[source.shown]),
        _markdown(comparison(rows, labels=LABELS, metrics=MAIN)),
        normalization_note(source.metrics, protocol.normalization, labels=LABELS),
    ]
    folded = [
        (
            f"{RULE_TITLES[rule]}: all metrics",
            _markdown(merge_equal_columns(comparison(rows, rule=rule, labels=LABELS))),
        )
        for rule in rules(rows)
    ]
    if len(source.seeds) > 1:
        title = f"By seed ({' / '.join(map(str, source.seeds))}), under the dataset card's protocol"
        folded.append((title, per_seed(models, labels=LABELS).markdown().strip()))
    section = Section(
        "Comparison", "\n\n".join(part for part in parts if part), data=("table.md", "table.csv"), folded=folded
    )
    write_text(source.folder / "table.md", section.markdown() + "\n")
    write_comparison_csv(source.folder / "table.csv", rows)
    return section


def _markdown(table: Table) -> str:
    return bold_best(table).markdown().strip()
