"""Searches on an easy world in memory, small enough for a test."""

from __future__ import annotations

from pathlib import Path

from pipeline.common.config import EvaluationSettings, ExtractSettings, Params, SearchRange, SearchSettings
from pipeline.search.search import Search
from pipeline.search.space import RowSpace, row_spaces
from pipeline.search.validation import Validation
from tests.support.easy_world import make_easy_world
from tests.support.synthetic import make_settings

TAU = SearchRange(low=0.05, high=0.6, log=True)
SPACES = {"initialize": {"temperature": TAU}, "itr": {"temperature": TAU, "delta_v": [0.5, 0.7, 0.9]}}
EVALUATION = EvaluationSettings(protocol="paper256", threshold=0.3)


def make_params(spaces=SPACES, **changes) -> Params:
    """Return params.yaml of the dataset `easy`; `changes` replace fields of its TrainingSettings."""
    settings = make_settings(**changes)
    encoder = settings.encoder.model_copy(update={"audio_pooling": "mean"})
    return Params(
        dataset="easy",
        variants=["itr"],
        seeds=[0],
        extract=ExtractSettings(),
        training={"easy": settings.model_copy(update={"encoder": encoder})},
        search=SearchSettings(spaces={"easy": spaces}),
    )


def make_search(folder: Path, *, trials: int = 3, prune: bool = False, metric: str = "mean_ciou", **changes) -> Search:
    """Return a search that writes below a folder."""
    train, _, _ = make_easy_world(24, 0)
    shards, boxes, _ = make_easy_world(8, 1)
    return Search(
        folder=folder / "search/easy",
        table=folder / "docs/search/easy.csv",
        settings=make_params(**changes).training["easy"],
        train=train,
        validation=Validation(shards, boxes, EVALUATION, metric, "cpu"),
        clips=folder / "clips.csv",
        seed=0,
        trials=trials,
        prune=prune,
        device="cpu",
    )


def make_spaces(spaces=SPACES, rows=(), **changes) -> list[RowSpace]:
    return row_spaces(make_params(spaces, **changes), "easy", rows)
