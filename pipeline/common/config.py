"""params.yaml and dataset cards → frozen, validated settings.

A setting that is unknown, of the wrong type or out of range raises SettingsError with the file, the key and the value.
The models document what each setting means; the values and the reasons for them are in params.yaml and in the cards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.common.errors import SettingsError
from pipeline.common.project import CARD_FILE
from pipeline.common.reading import read_yaml

_MAX_FAULTS, _MAX_SHOWN = 10, 200  # faults and characters of a value in one message


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(f"kernel size {number} is even; use an odd one, so that each cell has a center")
    return number


def _even(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd; use an even FFT length, so that there is a bin at half the sample rate")
    return number


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
FourCounts = tuple[Count, Count, Count, Count]
Padding = Literal["zeros", "replicate"]
DATASET_NAME = r"^[A-Za-z0-9_-]{1,64}$"
EvenCount = Annotated[int, Field(ge=2), AfterValidator(_even)]
OddCount = Annotated[int, Field(ge=1), AfterValidator(_odd)]


class Settings(BaseModel):
    """Base class of all settings: frozen, strictly typed, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AudioSettings(Settings):
    """How a clip's audio becomes a log-mel spectrogram."""

    sample_rate: Count  # Hz, after resampling
    clip_seconds: Positive  # length of the window, centered on the clip's timestamp
    n_fft: EvenCount  # samples; the Hann window has the same length
    hop_length: Count  # samples
    n_mels: Count
    power: Positive = 2.0  # exponent of the magnitude before the mel filters
    log_floor: Positive = 1.0e-10  # lower limit of the mel energy; its logarithm is the value of digital silence

    @model_validator(mode="after")
    def _has_a_sample(self) -> AudioSettings:
        if self.n_samples < 1:
            raise ValueError(
                f"clip_seconds {self.clip_seconds:g} is less than one sample at {self.sample_rate} Hz; raise it"
            )
        return self

    @property
    def n_samples(self) -> int:
        """Samples in one clip."""
        return round(self.sample_rate * self.clip_seconds)

    @property
    def n_frames(self) -> int:
        """Frames of the spectrogram, with centered windows as in librosa."""
        return self.n_samples // self.hop_length + 1


class EvaluationSettings(Settings):
    """How the dataset is scored."""

    protocol: str  # a name of pipeline.scoring.protocols
    threshold: Fraction = 0.5  # smallest cIoU of a success


class RenderSettings(Settings):
    """For a dataset whose media are rendered from a seed, such as the demo."""

    seed: Annotated[int, Field(ge=0)]
    context: Fraction = 0.0  # probability that the background is the one associated with the sounding object


class Card(Settings):
    """A dataset card, data_manifests/NAME/dataset.yaml."""

    title: str
    source: str
    license: str
    media_root: str  # relative to the project; see `pipeline.manifests.prepared.resolve_media_root`
    image_size: Count  # side of the stored square frame, pixels
    audio: AudioSettings
    evaluation: EvaluationSettings
    render: RenderSettings | None = None
    media_fingerprint: str = ""  # of media created by an importer; if it changes, the clips are extracted again
    leaks_allowed: bool = False  # the user accepts that train and test share clips


class ResNetSettings(Settings):
    """Architecture of a ResNet with basic blocks. ResNet-18 has blocks 2 2 2 2, width 64, strides 1 2 2 2, kernels 3 3 3 3."""

    blocks: FourCounts = (2, 2, 2, 2)
    width: Count = 64  # channels of the first stage; doubled by each later stage
    strides: FourCounts = (1, 2, 2, 1)
    kernel_sizes: tuple[OddCount, OddCount, OddCount, OddCount] = (3, 3, 3, 3)
    # What convolutions see beyond the border. The default is left out of fingerprints and checkpoints.
    padding: Annotated[Padding, Field(exclude_if=lambda value: value == "zeros")] = "zeros"


class EncoderSettings(Settings):
    """The two ResNets, and the projection to a common embedding space."""

    visual: ResNetSettings = ResNetSettings()
    audio: ResNetSettings = ResNetSettings()
    embedding_dim: Count | None = None  # None: the features of the last stage, without a projection
    batch_norm: bool = False  # BatchNorm without affine parameters before the L2 normalization
    audio_pooling: Literal["mean", "max"] = "mean"
    visual_weights: str | None = None  # a torchvision ResNet state dict; None starts from random weights


class AugmentationSettings(Settings):
    """Random augmentation of a training pair. The maps of the previous epoch are moved together with the frame."""

    flip: bool = True
    shift_cells: Annotated[int, Field(ge=0)] = 0  # largest shift, in cells of the response map
    color_jitter: Fraction = 0.0  # brightness, contrast and saturation within 1 ± this
    roll_audio: bool = False  # roll the spectrogram in time by a random amount


class OptimizationSettings(Settings):
    """One phase of training."""

    epochs: Count
    temperature: Positive
    learning_rate: Positive
    weight_decay: NonNegative


class IterationSettings(OptimizationSettings):
    """Settings of Eq. 4–7. Each method can override them under `methods`, as the rows of Table 2 do."""

    delta_v: Fraction  # threshold of the response, Eq. 2, 4, 5
    delta_a: Fraction  # threshold of the audio similarity, Eq. 6
    cells: Annotated[int, Field(ge=0)] = 1  # cells sampled from each set; 0: the mean over all cells of the set
    center_audio: bool = True  # subtract the training set's mean embedding before Eq. 6
    keep_epochs: Annotated[int, Field(ge=2)] = (
        5  # number of epochs whose weights are kept, including the first and the last
    )


class LabeledSettings(IterationSettings):
    """For methods that are trained with class labels."""

    label_file: str | None = None  # see pipeline.training.class_labels; None: column `label` of the clip list


Iteration = TypeVar("Iteration", bound=IterationSettings)


class TrainingSettings(Settings):
    """Training settings for one dataset: the block `training.NAME` of params.yaml."""

    batch_size: Annotated[int, Field(ge=2)]
    encoder: EncoderSettings
    augmentation: AugmentationSettings
    initialize: OptimizationSettings
    iterate: IterationSettings
    methods: dict[str, dict[str, Any]]  # per method: overrides of `iterate`, and the method's own settings

    def method(self, name: str, kind: type[Iteration]) -> Iteration:
        """Return the settings of one method as an instance of `kind`: `iterate`, overridden by the method's own values."""
        if name not in self.methods:
            raise SettingsError(f"methods: no entry for {name!r}; available: {', '.join(self.methods)}")
        return _validated(kind, {**self.iterate.model_dump(), **self.methods[name]}, f"methods.{name}")


class ExtractSettings(Settings):
    """How clips become shards. None of these settings changes the stored data of a usable clip."""

    clips_per_shard: Count = 512
    max_reject_fraction: Fraction = 0.1  # the stage fails if more clips than this are unusable
    clip_time_limit_s: Positive = 30.0


class Params(Settings):
    """params.yaml."""

    dataset: Annotated[str, Field(pattern=DATASET_NAME)]
    variants: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    score_split: str = "test"
    cross_datasets: list[Annotated[str, Field(pattern=DATASET_NAME)]] = []  # scored too, never used for training
    extract: ExtractSettings
    training: dict[str, TrainingSettings]

    @model_validator(mode="after")
    def _names_agree(self) -> Params:
        if self.dataset not in self.training:
            raise ValueError(f"dataset {self.dataset!r} has no block under `training`; copy one and adapt it")
        for name, block in self.training.items():
            # YAML's `<<:` merges only the top level, so an `encoder` with one key would get our defaults for all others.
            if missing := EncoderSettings.model_fields.keys() - block.encoder.model_fields_set:
                raise ValueError(
                    f"training.{name}.encoder: no {', '.join(sorted(missing))}; set all keys, `<<:` does not merge nested blocks"
                )
        if self.score_split == "train":
            raise ValueError("score_split: 'train' is used for training; use a held-out split, such as validation")
        if self.dataset in self.cross_datasets:
            raise ValueError(
                f"cross_datasets: {self.dataset!r} is the active dataset, which is always scored; remove it"
            )
        lists: dict[str, list[Any]] = {
            "seeds": self.seeds,
            "variants": self.variants,
            "cross_datasets": self.cross_datasets,
        }
        for name, values in lists.items():
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: an entry is repeated in {values}")
        methods = self.training[self.dataset].methods
        unknown = [name for name in self.variants if name not in methods]
        if unknown:
            raise ValueError(f"variants: {unknown} not among training.{self.dataset}.methods: {', '.join(methods)}")
        return self


Model = TypeVar("Model", bound=Settings)


def load_params(path: Path) -> Params:
    """Read and validate params.yaml.

    Raises
    ------
    SettingsError
        The file is missing or is not YAML, or a setting is unknown, mistyped or out of range.
    """
    return _validated(Params, _read_settings(path), str(path))


def load_card(folder: Path) -> Card:
    """Read and validate the card ``dataset.yaml`` in a manifest folder. Raises SettingsError as `load_params` does."""
    path = folder / CARD_FILE
    return _validated(Card, _read_settings(path), str(path))


def _read_settings(path: Path) -> Any:
    if not path.exists():
        raise SettingsError(f"{path}: no such file; run from the project root, or import the dataset first")
    return read_yaml(path, SettingsError)


def _validated(model: type[Model], value: Any, where: str) -> Model:
    if not isinstance(value, dict):
        raise SettingsError(f"{where}: expected a mapping of settings, got {type(value).__name__}")
    try:
        # YAML has lists where the models have tuples. Strict validation accepts that from JSON, but not from Python values.
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        faults = [_explain(e, where) for e in error.errors()]
        more = f"; and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise SettingsError("; ".join(faults[:_MAX_FAULTS]) + more) from None


def _explain(error: Any, where: str) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":
        return f"{where}: {key}{': ' if key else ''}{error['ctx']['error']}"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown setting {key!r}; check its spelling"
    if error["type"] == "missing":
        return f"{where}: setting {key!r} is missing"
    message = f"{where}: setting {key!r}: {error['msg']}, got {repr(error['input'])[:_MAX_SHOWN]}"
    if isinstance(error["input"], str) and _is_number(error["input"]):
        message += " (a string; in YAML a number like 1.0e-4 needs the decimal point)"
    return message


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
