"""Numbers and verdicts as the page of evidence writes them: percent and points with one decimal."""

from __future__ import annotations

import math

from pipeline.report.evidence.estimates import Estimate


def percent(fraction: float) -> str:
    """Return ``63.5%``."""
    return f"{100 * fraction:.1f}%"


def signed(fraction: float) -> str:
    """Return a difference in points, ``+17.4`` or ``-1.2``; a difference that rounds to zero is ``0.0``."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def interval(estimate: Estimate) -> str:
    """Return ``13.9 to 20.9``, in points."""
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}".replace("-0.0", "0.0")


def seeds_ahead(estimate: Estimate) -> str:
    """Return with how many seeds a difference is above 0, ``4 of 5 seeds ahead``, or ``one seed``."""
    of_seeds = estimate.of_seeds
    if len(of_seeds) == 1:
        return "one seed"
    return f"{sum(each > 0 for each in of_seeds)} of {len(of_seeds)} seeds ahead"


def spread(estimate: Estimate) -> str:
    """Return ``95% interval 13.9 to 20.9; 4 of 5 seeds ahead``, or that there is no interval."""
    if math.isnan(estimate.low):
        return f"{seeds_ahead(estimate)}, so no interval"
    return f"95% interval {interval(estimate)}; {seeds_ahead(estimate)}"


def cell(estimate: Estimate) -> str:
    """Return the cell of a table: the verdict, bold if it decides, and the difference."""
    verdict = estimate.verdict
    return f"{f'**{verdict}**' if verdict in ('supported', 'contradicted') else verdict}, {signed(estimate.value)}"


def compared(first: str, second: str, estimate: Estimate, metric: str) -> str:
    """Return ``A is 17.4 points above B in AUC``, ``below``, or ``level with`` if the difference rounds to zero."""
    if signed(estimate.value) == "0.0":
        return f"{first} is level with {second} in {metric}"
    place = "above" if estimate.value > 0 else "below"
    return f"{first} is {abs(100 * estimate.value):.1f} points {place} {second} in {metric}"
