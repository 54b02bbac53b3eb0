"""The paper's claims about training: regions settle over the epochs (Figure 6), and similar audio has the same class (Figure 7).

Both are measured on the training set by the stage `report` (``relation_quality.csv``), with one value per seed, so an interval needs
two seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.common.errors import EvaluationError
from pipeline.common.tables import read_records
from pipeline.report.evidence.estimates import Estimate, over_seeds
from pipeline.report.evidence.results import Results
from pipeline.report.evidence.wording import percent, signed, spread
from pipeline.report.sections.relation import STEM
from pipeline.report.source import OURS


@dataclass(frozen=True)
class EpochFinding:
    """A difference over seeds, and the values (fractions, means over seeds) that its sentence states."""

    difference: Estimate
    values: Mapping[str, float]


def regions_settle(results: Results) -> EpochFinding | None:
    """Compare the last epoch with the first by the IoU of an epoch's sounding masks with those of the epoch before.

    Returns None if it was not measured, or if there are fewer than two epochs.
    """
    runs = list(_measured(results, "mask_iou_previous").values())
    first, last = ([values[pick(values)] for values in runs] for pick in (min, max))
    if not runs or any(len(values) < 2 for values in runs):
        return None
    difference = over_seeds([after - before for before, after in zip(first, last, strict=True)])
    return EpochFinding(difference, {"first": _mean(first), "last": _mean(last), "epochs": max(map(max, runs))})


def audio_is_related(results: Results) -> EpochFinding | None:
    """Compare the precision of y (Eq. 6) after the last epoch with chance.

    Returns None if the training clips have no labels, or if y relates no pair after the last epoch of a run.
    """
    precisions, chances, recalls = (_measured(results, column) for column in ("precision", "alike", "recall"))
    last = {seed: max(values) for seed, values in chances.items()}
    if not last or any(epoch not in precisions.get(seed, {}) for seed, epoch in last.items()):
        return None
    precision, chance, recall = (
        [runs[seed][epoch] for seed, epoch in last.items()] for runs in (precisions, chances, recalls)
    )
    difference = over_seeds([own - by_chance for own, by_chance in zip(precision, chance, strict=True)])
    return EpochFinding(difference, {"precision": _mean(precision), "chance": _mean(chance), "recall": _mean(recall)})


def regions_sentence(found: EpochFinding) -> str:
    """Return the sentence on a finding of `regions_settle`."""
    values = found.values
    return (
        f"The sounding region overlaps that of the epoch before with an IoU of {values['first']:.2f} in the first epoch and "
        f"{values['last']:.2f} after {values['epochs']:g} ({_change(found)})."
    )


def relation_sentence(found: EpochFinding) -> str:
    """Return the sentence on a finding of `audio_is_related`."""
    values = found.values
    return (
        f"{percent(values['precision'])} of the pairs that Eq. 6 relates share a class, {percent(values['chance'])} of all pairs do "
        f"({_change(found)}). Eq. 6 relates {percent(values['recall'])} of the pairs that share one."
    )


# Title, measurement, sentence, and what it needs.
EPOCH_CLAIMS = (
    (
        "Sounding regions settle over the epochs (Figure 6)",
        regions_settle,
        regions_sentence,
        "It needs the report on runs of two epochs or more.",
    ),
    (
        "Audio that the model finds similar has the same class (Figure 7)",
        audio_is_related,
        relation_sentence,
        "It needs the report, labels of the training clips, and related pairs after the last epoch.",
    ),
)


def _change(found: EpochFinding) -> str:
    change = found.difference
    return f"difference {signed(change.value)} points, {spread(change)}"


def _measured(results: Results, column: str) -> dict[int, dict[int, float]]:
    """Return seed → epoch → value of `iterative`; empty if nothing was measured."""
    path = results.folder / "report" / f"{STEM}.csv"
    if OURS not in results.rows or not path.is_file():
        return {}
    runs: dict[int, dict[int, float]] = {}
    try:
        for record in read_records(path, EvaluationError):
            if record["variant"] == OURS and record[column]:
                runs.setdefault(int(record["seed"]), {})[int(record["epoch"])] = float(record[column])
    except (KeyError, ValueError) as error:
        raise EvaluationError(f"{path}: damaged ({error}); run `dvc repro report`") from None
    return {seed: runs[seed] for seed in results.rows[OURS].seeds if seed in runs}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
