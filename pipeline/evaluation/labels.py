"""Display names of variants and content-free baselines, for tables and figures."""

from __future__ import annotations

from pipeline.methods.registry import METHODS
from pipeline.scoring.baselines import BASELINE_LABELS

LABELS = {**BASELINE_LABELS, **{name: spec.label for name, spec in METHODS.items()}}


def label_of(name: str) -> str:
    """Return the display name of a variant or baseline; an unknown one keeps its own name."""
    return LABELS.get(name, name)
