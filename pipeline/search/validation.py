"""The score of a model on the validation split, the only one that settings are chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from pipeline.common.config import EvaluationSettings
from pipeline.common.errors import DivergenceError, SearchError
from pipeline.common.files import fingerprint
from pipeline.evaluation.response_maps import BATCH_SIZE
from pipeline.manifests.boxes import Box
from pipeline.methods.trained_model import TrainedModel
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.score import score, summarize
from pipeline.shards.reader import ShardSet

METRICS = ("success_rate", "auc", "mean_ciou", "mean_iou", "pointing_accuracy", "quadrant_accuracy")


@dataclass(frozen=True)
class Validation:
    """The validation split and the metric.

    Attributes
    ----------
    shards : ShardSet
    boxes : sequence of Box
    evaluation : EvaluationSettings
        Protocol, threshold and grid of the dataset's card.
    metric : str
        One of METRICS.
    device : str
    """

    shards: ShardSet
    boxes: Sequence[Box]
    evaluation: EvaluationSettings
    metric: str
    device: str = "auto"

    @property
    def conditions(self) -> dict[str, Any]:
        """What a score depends on besides the model, as JSON values."""
        boxes = sorted(astuple(box) for box in self.boxes)
        return {
            "metric": self.metric,
            "evaluation": self.evaluation.model_dump(mode="json"),
            "validation clips": [self.shards.fingerprint, self.shards.content_digest],
            "validation boxes": fingerprint({"boxes": boxes}),
        }

    def score(self, model: TrainedModel, name: str) -> float:
        """Return the metric of a model, in [0, 1].

        Raises
        ------
        DivergenceError
            A response is not finite; `name` is in the message.
        """
        maps = model.response_maps(self.shards, batch_size=BATCH_SIZE, device=self.device)
        if not np.isfinite(maps).all():
            raise DivergenceError(f"{name}: the responses are not finite; lower the learning rate")
        rule = get_protocol(self.evaluation.protocol)
        if model.normalization:
            rule = replace(rule, normalization=model.normalization)
        scores = score(
            maps,
            self.shards.clip_ids,
            self.boxes,
            rule,
            threshold=self.evaluation.threshold,
            grid=self.evaluation.grid,
        )
        return float(summarize(scores)[self.metric])


def default_metric(evaluation: EvaluationSettings) -> str:
    """Return the metric that a dataset is searched by: of mosaics the quadrant accuracy, otherwise the success rate."""
    return "quadrant_accuracy" if evaluation.grid else "success_rate"


def check_metric(metric: str, evaluation: EvaluationSettings) -> None:
    """Raise SearchError if a metric is unknown, or needs a grid that the card does not have."""
    if metric not in METRICS:
        raise SearchError(f"metric {metric!r}: choose one of {', '.join(METRICS)}")
    if metric == "quadrant_accuracy" and not evaluation.grid:
        raise SearchError("metric quadrant_accuracy: needs frames that are mosaics, with `grid` in the dataset's card")
