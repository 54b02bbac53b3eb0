"""Write the page of evidence with its figures and their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.files import write_csv, write_text
from pipeline.figures.style import save
from pipeline.report.evidence.claims import CLAIMS, Claim, Finding, check
from pipeline.report.evidence.page import page
from pipeline.report.evidence.picture import ENDS, pictures
from pipeline.report.evidence.results import Results
from pipeline.scoring.summary import SHUFFLED

IMAGES = "images"


def write_evidence(path: Path, datasets: Sequence[Results], *, command: str, note: str = "") -> list[Path]:
    """Write the page, and below ``images/`` next to it the figures and their numbers.

    Parameters
    ----------
    path : Path
        The page, ``STEM.md``. The figures are ``images/STEM.webp``, ``images/STEM-auc.webp`` and, for mosaics,
        ``images/STEM-success.webp``; the numbers ``images/STEM-rows.csv`` and ``images/STEM-claims.csv``.
    datasets : sequence of Results
        In the order of the columns.
    command, note : str
        For the text, see `pipeline.report.evidence.page.page`.

    Returns
    -------
    list of Path
        What was written.
    """
    images, stem = path.parent / IMAGES, path.stem
    figures = {
        images / f"{'-'.join(filter(None, (stem, name)))}.webp": each for name, each in pictures(datasets).items()
    }
    for file, figure in figures.items():
        save(figure, file)
    findings = {claim: [check(claim, results) for results in datasets] for claim in CLAIMS}
    rows, claims = images / f"{stem}-rows.csv", images / f"{stem}-claims.csv"
    write_csv(rows, ["dataset", "row", "metric", "value", "low", "high", "seeds"], list(_row_lines(datasets)))
    header = ["claim", "dataset", "row", "other", "metric", "difference", "low", "high", "verdict"]
    write_csv(claims, header, list(_claim_lines(datasets, findings)))
    links, tables = ([f"{IMAGES}/{file.name}" for file in files] for files in (figures, (rows, claims)))
    write_text(path, page(datasets, findings, figures=links, tables=tables, command=command, note=note))
    return [path, *figures, rows, claims]


def _row_lines(datasets: Sequence[Results]) -> Iterator[list[Any]]:
    """Yield a line for each row and metric, as fractions; `seeds` is the value of each seed, separated by spaces."""
    for results in datasets:
        every = {name: row.metrics for name, row in results.rows.items()} | dict(results.content_free)
        for name, metrics in every.items():
            for metric in [prefix + each for prefix in ("", SHUFFLED) for each in results.metrics]:
                if metric in metrics:
                    seeds = " ".join(map(str, metrics.get(f"{metric}_seeds", [])))
                    yield [results.name, name, metric, *(metrics[metric + end] for end in ENDS), seeds]


def _claim_lines(datasets: Sequence[Results], findings: Mapping[Claim, Sequence[Finding]]) -> Iterator[list[Any]]:
    """Yield a line for each claim, dataset and metric that was measured, as fractions."""
    for claim, found in findings.items():
        for results, finding in zip(datasets, found, strict=True):
            for metric, each in finding.differences.items():
                numbers = (each.value, each.low, each.high)
                yield [claim.title, results.name, claim.row, finding.other, metric, *numbers, each.verdict]
