"""What a reader must know besides the claims: content-free maps, scoring rules, shuffled audio, and rows below their start.

Each function returns one or two sentences about one dataset. Numbers are percent, differences in points.
"""

from __future__ import annotations

from pipeline.evaluation.labels import label_of
from pipeline.report.evidence.claims import difference
from pipeline.report.evidence.estimates import estimate
from pipeline.report.evidence.results import METRIC_NAMES, Results
from pipeline.report.evidence.wording import interval, percent, seeds_ahead, signed
from pipeline.report.source import OURS
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.summary import SHUFFLED

UNTOUCHED = "untouched"
_RULES = {"median_": "the map's median", "fixed_": "0.5"}
SUCCESS = "success_rate"


def content_free_sentence(results: Results) -> str:
    """Return the score of the best content-free map, and which trained rows are not shown to be above it."""
    primary = results.primary
    best = max(results.content_free, key=lambda name: results.content_free[name][primary])
    level = [label_of(n) for n in results.rows if difference(results, n, best, primary).verdict != "supported"]
    text = f"The best content-free map, {label_of(best)}, reaches {percent(results.content_free[best][primary])} {METRIC_NAMES[primary]}."
    if not level:
        return f"{text} Every trained row is above it."
    return f"{text} Not shown to be above it in {METRIC_NAMES[primary]}: {'; '.join(level)}."


def rules_sentence(results: Results) -> str:
    """Return how the success rates, and which row is the best, change if the sounding region is chosen by another rule."""
    every = {name: row.metrics for name, row in results.rows.items()} | dict(results.content_free)
    own = OURS if OURS in results.rows else next(iter(results.rows))
    sentences = []
    for rule, meaning in _RULES.items():
        after = {name: metrics[rule + SUCCESS] for name, metrics in every.items() if rule + SUCCESS in metrics}
        if own not in after:
            continue
        blank = max(
            (name for name in results.content_free if name in after), key=lambda n: max(after[n], every[n][SUCCESS])
        )
        changes = " and ".join(
            f"{label_of(name)} from {percent(every[name][SUCCESS])} to {percent(after[name])}" for name in (own, blank)
        )
        (best, success), (best_after, success_after) = (
            max(((name, scores[name]) for name in after), key=lambda item: item[1])
            for scores in ({name: metrics[SUCCESS] for name, metrics in every.items()}, after)
        )
        was = "as before" if best == best_after else f"instead of {label_of(best)} with {percent(success)}"
        sentences.append(
            f"With {meaning} as the threshold of the sounding region instead of {_own_rule(results)}, the success rate changes for "
            f"{changes}. The best row is {label_of(best_after)} with {percent(success_after)}, {was}."
        )
    return " ".join(sentences)


def _own_rule(results: Results) -> str:
    """Return the threshold rule of the dataset's protocol, in words."""
    protocol = get_protocol(results.any_row.metrics["protocol"])
    return {
        "fixed": f"{protocol.map_threshold:g}",
        "relative-to-max": f"{protocol.map_threshold:g} of the map's maximum",
        "median": "the map's median",
        "oracle-area": "the annotated area",
    }[protocol.threshold_rule]


def shuffled_sentence(results: Results) -> str:
    """Return how much of the score is lost if every frame gets the audio of another clip; empty without `iterative`."""
    if OURS not in results.rows:
        return ""
    row, metric = results.rows[OURS], results.primary
    lost = estimate(row.values[metric] - row.values[SHUFFLED + metric])
    return (
        f"With the audio of another clip, the {METRIC_NAMES[metric]} of {label_of(OURS)} is {percent(row.metrics[SHUFFLED + metric])} "
        f"instead of {percent(row.metrics[metric])}, {abs(100 * lost.value):.1f} points {'less' if lost.value >= 0 else 'more'} "
        f"(95% interval of the loss {interval(lost)})."
    )


def below_start_sentence(results: Results) -> str:
    """Return which rows score below the initialization that they start from; empty if that row was not scored."""
    if UNTOUCHED not in results.rows:
        return ""
    metric = results.primary
    below = {}
    for name in results.rows:
        change = difference(results, name, UNTOUCHED, metric)
        if name != UNTOUCHED and change.verdict == "contradicted":
            below[name] = f"{label_of(name)} ({signed(change.value)}, {seeds_ahead(change)})"
    start = (
        f"The initialization alone reaches {percent(results.rows[UNTOUCHED].metrics[metric])} {METRIC_NAMES[metric]}."
    )
    return f"{start} Training lowers it for: {'; '.join(below.values()) or 'none of the rows'}."
