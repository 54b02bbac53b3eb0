"""The text of the page of evidence, in Markdown. Numbers are percent, differences in percentage points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pipeline.common.config import load_card
from pipeline.common.project import CARD_FILE, manifest_folder
from pipeline.common.text_table import MISSING, Table, printable
from pipeline.evaluation.labels import label_of
from pipeline.report.evidence.claims import Claim, Finding, published_difference
from pipeline.report.evidence.epochs import EPOCH_CLAIMS
from pipeline.report.evidence.estimates import Estimate
from pipeline.report.evidence.findings import (
    SUCCESS,
    below_start_sentence,
    content_free_sentence,
    rules_sentence,
    shuffled_sentence,
)
from pipeline.report.evidence.results import METRIC_NAMES, Results
from pipeline.report.evidence.wording import cell, compared, interval, percent, signed, spread

HOW_TO_READ = (
    "Each dot is one seed, each stroke the mean over seeds, each bar the 95% interval over clips. Each panel has its own data and scale. "
    "The paper's values are from its own videos and annotations, so compare the order of the rows, not their values. All values as fractions: {}."
)
MEASURES = {
    "success_rate": "**Success rate**, the paper's cIoU@0.5: the share of clips whose sounding region has a cIoU of at least {threshold:g} "
    "with the annotated one.",
    "auc": "**AUC**: the area under the success rate over all cIoU thresholds from 0 to 1 ([definitions](protocols.md)).",
    "quadrant_accuracy": "**Quadrant accuracy**, for mosaics of photographs: the share of clips in which the photograph with the highest "
    "mean response is one that sounds. Chance is {chance}.",
}
RULE = (
    "A claim says that one row scores above another, each with its own settings. Differences are in percentage points, paired by seed and "
    "clip, except for those from content-free maps. Their 95% intervals cover {variation}. A claim is **supported** if the interval is "
    "above 0, and **contradicted** if it is below 0. Otherwise, the results are **inconclusive**, which is no evidence against the claim. "
    "About one in twenty such intervals misses the true value; the page has dozens of them, and does not correct for that.\n\n"
    "The paper's differences are on SoundNet-Flickr with 10,000 training pairs: from Table 2 if it has both rows, otherwise from Table 1. "
    "Its only content-free row is Random."
)
SEVERAL_SEEDS = "the variation over test clips (bootstrap) and over seeds (Student's t)"
ONE_SEED = "the variation over test clips (bootstrap), but not over seeds where a row has one seed: another seed may reverse a verdict"
FINDINGS: Mapping[str, Callable[[Results], str]] = {
    "Maps that use neither frame nor audio": content_free_sentence,
    "The rule that turns a map into a region": rules_sentence,
    "Audio of another clip": shuffled_sentence,
    "Rows below their initialization": below_start_sentence,
}
Findings = Mapping[Claim, Sequence[Finding]]


def page(
    datasets: Sequence[Results],
    findings: Findings,
    *,
    figures: Sequence[str],
    tables: Sequence[str],
    command: str,
    note: str = "",
) -> str:
    """Return the page.

    Parameters
    ----------
    datasets : sequence of Results
    findings : mapping of Claim to sequence of Finding
        For each claim, one per dataset.
    figures : sequence of str
        Links to the figures, the primary one first.
    tables : sequence of str
        Links to the files with the numbers.
    command : str
        The command that writes the page.
    note : str
        A paragraph for the top, such as the machine and the date.
    """
    shown = {claim: found for claim, found in findings.items() if any(each.differences for each in found)}
    overview, sentences = _claims(datasets, shown)
    parts = [
        "# The evidence",
        f"What our results show about each claim of the paper. This page was written by `{command}`.",
        *([printable(note)] if note else []),
        "\n".join(f"- {_dataset_line(results)}" for results in datasets),
        f"![Every row, and the paper's values]({figures[0]})",
        HOW_TO_READ.format(", ".join(f"[{table.rpartition('/')[2]}]({table})" for table in tables)),
        "\n".join(_measures(datasets)),
        "## Verdicts",
        RULE.format(variation=ONE_SEED if _seeds(datasets)[0] == 1 else SEVERAL_SEEDS),
        "\n".join(
            f"- **{results.name}**: {_counts(shown, number, results)}" for number, results in enumerate(datasets)
        ),
        overview.markdown().strip(),
        "## Each claim",
        *sentences,
        "## Baselines and checks",
        "Public scripts differ in the rule that turns a map into a region, and under some of them, content-free maps score high: see "
        "[Protocols](protocols.md).",
        *_beside(datasets),
        "## Further measures",
        *(f"![Further measures]({figure})" for figure in figures[1:]),
        "## What is missing",
        "\n".join(f"- {line}" for line in _missing(datasets, [claim for claim in findings if claim not in shown])),
    ]
    return "\n\n".join(parts) + "\n"


def _dataset_line(results: Results) -> str:
    facts, seeds = results.any_row.metrics, _seeds([results])
    manifest = manifest_folder(results.folder.resolve().parents[1], results.name)
    title = f"{printable(load_card(manifest).title)}; " if (manifest / CARD_FILE).is_file() else ""
    spread = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
    return (
        f"**{results.name}**: {title}{facts['n_clips']:,} clips of the split `{facts['split']}`, protocol `{facts['protocol']}`, "
        f"{spread} seed{'' if spread == '1' else 's'} for each row. Verdicts are by {METRIC_NAMES[results.primary]}."
    )


def _measures(datasets: Sequence[Results]) -> list[str]:
    """Return what the measures mean, with the facts of the first dataset that has them."""
    lines = []
    for metric, text in MEASURES.items():
        facts = next((results.any_row.metrics for results in datasets if metric in results.metrics), None)
        if facts is not None:
            chance = percent(facts.get("quadrant_chance", 0))
            lines.append(f"- {text.format(threshold=facts['threshold'], chance=chance)}")
    return lines


def _seeds(datasets: Sequence[Results]) -> list[int]:
    """Return how many seeds the rows have, ascending."""
    return sorted({len(row.seeds) for results in datasets for row in results.rows.values()})


def _counts(shown: Findings, number: int, results: Results) -> str:
    """Return how many of the claims about scores are supported on the dataset with this number; of mosaics also by success rate."""
    found = [each[number].differences for each in shown.values() if each[number].differences]
    text = f"{len(found)} claims about scores: {_verdicts([next(iter(each.values())) for each in found])}."
    if results.primary == SUCCESS:
        return text
    # The paper's metric; claims about the best of several rows have the primary one only.
    by_success = [each[SUCCESS] for each in found if SUCCESS in each]
    return f"{text} By success rate, the paper's metric, {len(by_success)} of them compare two rows: {_verdicts(by_success)}."


def _verdicts(differences: Sequence[Estimate]) -> str:
    counts = Counter(each.verdict for each in differences)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("supported", "contradicted", "inconclusive"))


def _claims(datasets: Sequence[Results], shown: Findings) -> tuple[Table, list[str]]:
    """Return the table of verdicts, and for each claim a paragraph with one sentence per dataset."""
    header = (
        "claim",
        "paper: success rate",
        *(f"{results.name}: {METRIC_NAMES[results.primary]}" for results in datasets),
    )
    rows, paragraphs = [], []
    for claim, found in shown.items():
        printed = published_difference(claim)
        source = f" (paper: {signed(printed[0] / 100)} success rate, {signed(printed[1] / 100)} AUC)" if printed else ""
        rows.append((claim.title, signed(printed[0] / 100) if printed else MISSING, *map(_cell, found)))
        paragraphs.append(_paragraph(claim.title + source, datasets, [_sentence(claim, each) for each in found]))
    for title, measure, sentence, needs in EPOCH_CLAIMS:
        measured = [measure(results) for results in datasets]
        rows.append((title, MISSING, *(cell(each.difference) if each else MISSING for each in measured)))
        sentences = [
            f"{each.difference.verdict}.** {sentence(each)}" if each else f"not measured.** {needs}"
            for each in measured
        ]
        paragraphs.append(_paragraph(title, datasets, sentences))
    return Table(header, tuple(rows)), paragraphs


def _paragraph(title: str, datasets: Sequence[Results], sentences: Sequence[str]) -> str:
    lines = [f"- **{results.name}: {text}" for results, text in zip(datasets, sentences, strict=True)]
    return f"**{title}**\n\n" + "\n".join(lines)


def _cell(finding: Finding) -> str:
    return cell(finding.primary) if finding.differences else MISSING


def _sentence(claim: Claim, finding: Finding) -> str:
    if not finding.differences:
        return f"not measured.** Not trained: {'; '.join(map(label_of, finding.missing))}."
    (metric, first), *others = finding.differences.items()
    rival = f"the best of the others, {label_of(finding.other)}," if len(claim.others) > 1 else label_of(finding.other)
    further = "".join(f"; {METRIC_NAMES[name]} {signed(each.value)} ({interval(each)})" for name, each in others)
    return (
        f"{first.verdict}.** {compared(label_of(claim.row), rival, first, METRIC_NAMES[metric])} "
        f"({spread(first)}){further}."
    )


def _beside(datasets: Sequence[Results]) -> list[str]:
    parts = []
    for title, sentence in FINDINGS.items():
        lines = [f"- **{results.name}.** {text}" for results in datasets if (text := sentence(results))]
        if lines:
            parts.append(f"**{title}**\n\n" + "\n".join(lines))
    return parts


def _missing(datasets: Sequence[Results], claims: Sequence[Claim]) -> list[str]:
    lines = []
    for results in datasets:
        names = "; ".join(map(label_of, results.missing))
        lines.append(f"**{results.name}**: {f'rows not trained: {names}' if names else 'every row was trained'}.")
    if claims:
        lines.append(f"Claims that no dataset measures: {'; '.join(claim.title for claim in claims)}.")
    return lines
