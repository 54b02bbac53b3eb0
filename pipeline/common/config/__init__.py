"""params.yaml and dataset cards → frozen, validated settings.

A setting that is unknown, of the wrong type or out of range raises SettingsError with the file, the key and the value.
The models document what each setting means; the values and the reasons for them are in params.yaml and in the cards.

base: the base class, types, reading. card: dataset.yaml. encoder: the encoders. training: params.yaml. extract, search: its blocks
`extract` and `search`.
"""

from pipeline.common.config.base import Count, Fraction, NonNegative, OddCount, Positive, Settings
from pipeline.common.config.card import AudioSettings, Card, EvaluationSettings, RenderSettings, load_card
from pipeline.common.config.encoder import (
    TIMM,
    BackboneSettings,
    EncoderSettings,
    Padding,
    ResNetSettings,
    Side,
    TimmSettings,
    Trainable,
)
from pipeline.common.config.extract import EXACT, ExtractSettings, ShardEncoding
from pipeline.common.config.search import SearchRange, SearchSettings, Space
from pipeline.common.config.training import (
    ADDITIONS,
    OURS,
    AugmentationSettings,
    Convergence,
    IterationSettings,
    LabeledSettings,
    OptimizationSettings,
    Params,
    TrainingSettings,
    load_params,
)

__all__ = [
    "ADDITIONS",
    "EXACT",
    "OURS",
    "TIMM",
    "AudioSettings",
    "AugmentationSettings",
    "BackboneSettings",
    "Card",
    "Convergence",
    "Count",
    "EncoderSettings",
    "EvaluationSettings",
    "ExtractSettings",
    "Fraction",
    "IterationSettings",
    "LabeledSettings",
    "NonNegative",
    "OddCount",
    "OptimizationSettings",
    "Padding",
    "Params",
    "Positive",
    "RenderSettings",
    "ResNetSettings",
    "SearchRange",
    "SearchSettings",
    "Settings",
    "ShardEncoding",
    "Side",
    "Space",
    "TimmSettings",
    "Trainable",
    "TrainingSettings",
    "load_card",
    "load_params",
]
