"""Comparison of all rows under each scoring rule."""

from __future__ import annotations

from pipeline.common.files import write_text
from pipeline.evaluation.labels import LABELS
from pipeline.report.section import Section
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

RULE_TITLES = {"": "the dataset card's protocol", "median_": "the median rule", "fixed_": "a fixed threshold of 0.5"}


def comparison_section(source: Source) -> Section:
    """Write ``table.md`` and ``table.csv``: every metric of every row under each rule."""
    rows = [Row(name, values) for name, values in source.content_free.items()]
    models = [row for name, values in source.metrics.items() for row in with_shuffled(name, values)]
    parts = [
        f"Scores on the split `{source.split}`, in percent, with the bootstrap 95% interval over clips. The first rows "
        "are content-free baselines; *shuffled audio* is the model of the row above, given the audio of another clip."
    ]
    parts.append(quadrant_note(source.metrics[source.shown]))
    for rule in rules([*rows, *models]):
        parts += [
            f"Under {RULE_TITLES[rule]}:",
            comparison([*rows, *models], rule=rule, labels=LABELS).markdown().strip(),
        ]
    if len(source.seeds) > 1:
        parts += [
            f"By seed ({' / '.join(map(str, source.seeds))}), under the dataset card's protocol:",
            per_seed(models, labels=LABELS).markdown().strip(),
        ]
    parts.append(
        normalization_note(source.metrics, get_protocol(source.card.evaluation.protocol).normalization, labels=LABELS)
    )
    text = "\n\n".join(part for part in parts if part)
    write_text(source.folder / "table.md", text + "\n")
    write_comparison_csv(source.folder / "table.csv", [*rows, *models])
    return Section("Comparison", text, data=("table.md", "table.csv"))
