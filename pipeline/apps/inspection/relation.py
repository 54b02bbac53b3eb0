"""The audio relation of each epoch (Eq. 6): how similar clips sound, how many are related, and whether rightly, where labels exist.

Conventions
-----------
Fractions are in [0, 1], over pairs of different clips; None where there is no value. y is of ã of the epoch itself, as the next epoch
reads it with `relation_from: previous`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline.apps.inspection.views import Artifacts
from pipeline.common.text_table import MISSING, Table
from pipeline.evaluation.audio_similarity import percentiles, recommended_delta_a, sampled_cosines
from pipeline.evaluation.relation_quality import measured_clips, relation_of_labels, relation_quality, share_a_label
from pipeline.pseudo_labels.artifact import PseudoLabels

NO_LABELS: Mapping[str, frozenset[str]] = {}


@dataclass(frozen=True)
class Related:
    """y at one threshold.

    Attributes
    ----------
    delta_a : float
    positives_per_clip : float
        Other clips of the training set that are related to a clip.
    precision, recall : float or None
        Against class labels, see `pipeline.evaluation.relation_quality`.
    """

    delta_a: float
    positives_per_clip: float
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class EpochRelation:
    """The relation of one epoch.

    Attributes
    ----------
    epoch : int
    percentiles : dict of str to float or None
        Of the cosines of ã over pairs of different clips.
    alike : float or None
        Share of the pairs with a common label: the precision by chance.
    trained : Related
        At the δ_a of the artifact.
    recommended : Related or None
        At the δ_a that `pipeline.evaluation.audio_similarity.recommended_delta_a` finds without labels.
    """

    epoch: int
    percentiles: dict[str, float | None]
    alike: float | None
    trained: Related
    recommended: Related | None


def relation_epochs(
    artifacts: Artifacts, *, center: bool, label_sets: Mapping[str, frozenset[str]] = NO_LABELS
) -> Iterator[EpochRelation]:
    """Yield the relation of each epoch, in order.

    Parameters
    ----------
    artifacts : Artifacts
    center : bool
        Subtract the mean of ã first.
    label_sets : mapping of str to frozenset of str
        Class labels by clip; empty if there are none.

    Raises
    ------
    PseudoLabelError
        A file is damaged.
    """
    for path in artifacts.paths.values():
        labels = PseudoLabels.open(path)
        cosines = sampled_cosines(labels, center_audio=center)
        sets = [label_sets.get(clip_id, frozenset()) for clip_id in labels.clip_ids]
        positions = measured_clips(sets)
        alike = share_a_label([sets[position] for position in positions])
        related = partial(_related, labels, cosines, positions, alike, center=center)
        recommended = recommended_delta_a(cosines)
        yield EpochRelation(
            epoch=int(labels.attrs["epoch"]),
            percentiles={name: _known(value) for name, value in percentiles(cosines).items()},
            alike=_known(relation_quality(alike, alike).alike),
            trained=related(delta_a=labels.attrs["delta_a"]),
            recommended=None if math.isnan(recommended) else related(delta_a=recommended),
        )


def relation_text(epochs: Sequence[EpochRelation], *, plain: bool = False) -> str:
    """Return two tables, one line per epoch each: the distribution of the cosines, and y at the δ_a in use and at the recommended one."""
    missing, delta = ("-", "delta_a") if plain else (MISSING, "δ_a")

    def cell(value: float | None, form: str = ".2f", *, scale: float = 1) -> str:
        return missing if value is None else format(scale * value, form)

    def cells(related: Related | None) -> list[str]:
        if related is None:
            return [missing] * 4
        shares = (cell(share, ".1f", scale=100) for share in (related.precision, related.recall))
        return [cell(related.delta_a, ".3f"), cell(related.positives_per_clip, ".1f"), *shares]

    levels = Table(
        ("epoch", *(f"cosine {name}" for name in epochs[0].percentiles)),
        tuple((str(each.epoch), *(cell(value) for value in each.percentiles.values())) for each in epochs),
    )
    names = ("related per clip", "precision %", "recall %")
    relations = Table(
        ("epoch", delta, *names, f"recommended {delta}", *names, "chance %"),
        tuple(
            (str(each.epoch), *cells(each.trained), *cells(each.recommended), cell(each.alike, ".1f", scale=100))
            for each in epochs
        ),
    )
    return f"{levels.text()}\n{relations.text()}"


def relation_rows(epochs: Sequence[EpochRelation]) -> tuple[list[str], list[list[Any]]]:
    """Return header and lines of the CSV file: the values of `relation_text`, as fractions; empty where there is none."""
    fields = ("delta_a", "positives_per_clip", "precision", "recall")
    header = ["epoch", *epochs[0].percentiles, *fields, *(f"{name}_recommended" for name in fields), "alike"]
    lines = []
    for each in epochs:
        values = [*each.percentiles.values()]
        for related in (each.trained, each.recommended):
            values += [getattr(related, name) if related else None for name in fields]
        lines.append([each.epoch, *("" if value is None else f"{value:.6g}" for value in [*values, each.alike])])
    return header, lines


def _related(
    labels: PseudoLabels,
    cosines: np.ndarray,
    positions: Sequence[int],
    alike: np.ndarray,
    *,
    delta_a: float,
    center: bool,
) -> Related:
    share = float((cosines >= delta_a).mean()) if len(cosines) else 0.0
    relation = relation_of_labels(labels, labels.clip_ids, positions, center_audio=center, delta_a=delta_a)
    quality = relation_quality(relation, alike)
    return Related(delta_a, share * (len(labels) - 1), _known(quality.precision), _known(quality.recall))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
