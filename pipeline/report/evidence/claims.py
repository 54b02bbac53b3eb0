"""The claims of the paper's Tables 1 and 2 as comparisons of rows, and what the scores on one dataset show about each.

A claim says that one row is above another. If several others are named, it says that the row is above the best of them, which is
chosen by its score, so it is harder to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.common.errors import EvaluationError
from pipeline.report.evidence.estimates import Estimate, estimate, unpaired_difference
from pipeline.report.evidence.results import Results
from pipeline.report.published import TABLE_1, TABLE_2
from pipeline.scoring.baselines import BASELINE_LABELS
from pipeline.scoring.metrics import FloatArray

PUBLISHED = "soundnet_flickr"  # the dataset of both tables


@dataclass(frozen=True)
class Claim:
    """One claim: `row` scores above every one of `others`.

    Attributes
    ----------
    title : str
        A short sentence.
    row : str
        A variant.
    others : tuple of str
        Variants or content-free baselines.
    printed : bool
        Whether the paper prints this comparison; if not, it is a fairer form of the one before it.
    """

    title: str
    row: str
    others: tuple[str, ...]
    printed: bool = True


CLAIMS = (
    Claim("Iterating beats plain contrastive learning", "itr", ("initial",)),
    Claim("Intra-frame sampling helps", "itr_intra", ("itr",)),
    Claim("Intra-frame sampling helps on top of the inter-frame relation", "iterative", ("itr_inter",)),
    Claim("The inter-frame relation helps", "itr_inter", ("itr",)),
    Claim("The inter-frame relation helps on top of intra-frame sampling", "iterative", ("itr_intra",)),
    Claim("The full method beats plain contrastive learning", "iterative", ("initial",)),
    # Not `itr`: `initial_matched` has the temperature of `iterative`, which need not be that of `itr`.
    Claim(
        "The full method beats plain contrastive learning at the same temperature",
        "iterative",
        ("initial_matched",),
        False,
    ),
    Claim("The full method is the best of its ablation", "iterative", ("initial", "itr", "itr_intra", "itr_inter")),
    Claim("The full method beats Attention", "iterative", ("attention",)),
    Claim("The full method beats DMC", "iterative", ("dmc",)),
    Claim("The full method beats MSSL", "iterative", ("mssl",)),
    Claim("The full method beats DSOL", "iterative", ("dsol",)),
    Claim("The full method beats content-free maps", "iterative", tuple(BASELINE_LABELS)),
    Claim("MSSL's second stage helps", "mssl", ("mssl_stage1",)),
    Claim("MSSL's class labels help", "mssl_stage1", ("mssl_stage1_unlabeled",)),
    Claim("A threshold (Eq. 2) improves MSSL's first stage", "mssl_stage1_eq2", ("mssl_stage1",)),
    Claim("Min-max normalization (Eq. 1) improves it further", "mssl_stage1_eq2_eq1", ("mssl_stage1_eq2",)),
    Claim("Contrastive learning beats MSSL's first stage", "initial", ("mssl_stage1_unlabeled_eq2_eq1",)),
)


@dataclass(frozen=True)
class Finding:
    """What one dataset shows about one claim.

    Attributes
    ----------
    other : str
        The row compared with; empty if the claim was not measured.
    differences : mapping of str to Estimate
        Metric → difference, the primary metric first, and alone if the best of several others was chosen by it; empty if the claim was
        not measured.
    missing : tuple of str
        Rows of the claim that have no scores.
    """

    other: str
    differences: Mapping[str, Estimate]
    missing: tuple[str, ...]

    @property
    def primary(self) -> Estimate:
        """The difference that decides the verdict. Only if the claim was measured."""
        return next(iter(self.differences.values()))


def check(claim: Claim, results: Results) -> Finding:
    """Return what the scores on one dataset show about a claim. It is measured only if every variant that it names was trained."""
    present = [name for name in claim.others if name in results.rows or name in results.content_free]
    # A dataset need not have every content-free baseline: the mean of the boxes needs boxes of another split.
    missing = tuple(n for n in (claim.row, *claim.others) if n not in results.rows and n not in BASELINE_LABELS)
    if missing or not present:
        return Finding("", {}, missing)
    other = max(present, key=lambda name: _score(results, name, results.primary))
    # By another metric, another row may be the best.
    metrics = results.metrics if len(claim.others) == 1 else (results.primary,)
    return Finding(other, {metric: difference(results, claim.row, other, metric) for metric in metrics}, missing)


def difference(results: Results, row: str, other: str, metric: str) -> Estimate:
    """Return by how much a variant is above another one, paired by seed and clip, or above a content-free baseline."""
    if other in results.rows:
        own, others = common_seeds(results, row, other, metric)
        return estimate(own - others)
    # Content-free baselines have no scores by clip on disk.
    scores = results.content_free[other]
    value, low, high = (scores[metric + end] for end in ("", "_low", "_high"))
    return unpaired_difference(estimate(results.rows[row].values[metric]), Estimate(value, low, high, (value,)))


def common_seeds(results: Results, row: str, other: str, metric: str) -> tuple[FloatArray, FloatArray]:
    """Return the values (seed, clip) of two variants for the seeds that both have. Raises EvaluationError if they have none."""
    first, second = results.rows[row], results.rows[other]
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    if not seeds:
        raise EvaluationError(f"{results.folder}: {row} and {other} have no seed in common; run `dvc repro`")
    own, others = (each.values[metric][[each.seeds.index(seed) for seed in seeds]] for each in (first, second))
    return own, others


def published_difference(claim: Claim) -> tuple[float, float] | None:
    """Return the paper's difference of success rate and AUC on SoundNet-Flickr, in points; None if it prints none."""
    for table in (TABLE_2, TABLE_1):
        rows = table[PUBLISHED].rows
        printed = [rows[name] for name in claim.others if name in rows]
        if claim.printed and claim.row in rows and printed:
            (success, area), (best, best_area) = rows[claim.row], max(printed)
            return round(success - best, 1), round(area - best_area, 1)
    return None


def _score(results: Results, name: str, metric: str) -> float:
    metrics = results.rows[name].metrics if name in results.rows else results.content_free[name]
    return float(metrics[metric])
