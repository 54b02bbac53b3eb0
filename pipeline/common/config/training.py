"""params.yaml: the pipeline's settings, and one block of training settings per dataset."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipeline.common.config.base import Count, Fraction, NonNegative, Positive, Settings, read_settings, validated
from pipeline.common.config.encoder import EncoderSettings, Side
from pipeline.common.config.extract import ExtractSettings
from pipeline.common.config.search import SearchSettings
from pipeline.common.errors import SettingsError

DATASET_NAME = r"^[A-Za-z0-9_-]{1,64}$"
# Settings of IterationSettings that are ours: at their defaults, Eq. 4 to 7 are the paper's.
ADDITIONS = ("draws", "delta_v_silent", "delta_v_start", "relation_share", "relation_from", "teacher_decay")
# `Method.unread` names those that a method does not read.
OURS = (*ADDITIONS, "until_converged")  # with what ends a run early


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
    backbone_learning_rate: Positive | None = None  # of backbones that start from `weights`; None: learning_rate
    weight_decay: NonNegative


class Convergence(Settings):
    """When a run ends before its last epoch: the paper iterates "until the results converge". Both values are ours.

    The run ends once the mean IoU of the sounding masks with those of the epoch before has been `mask_iou` or more in each of the
    last `patience` epochs.
    """

    mask_iou: Annotated[float, Field(gt=0, le=1)]
    patience: Count


class IterationSettings(OptimizationSettings):
    """Settings of Eq. 4–7. Each method can override them under `methods`, as the rows of Table 2 do.

    Those from `draws` on are ours (OURS): docs/parts.md explains them. FIXED has values that a method has in place of those of `iterate`.
    """

    FIXED: ClassVar[Mapping[str, Any]] = {}

    delta_v: Fraction  # threshold of the response, Eq. 2, 4, 5
    delta_a: Fraction  # threshold of the audio similarity, Eq. 6
    cells: Annotated[int, Field(ge=0)] = 1  # cells sampled from each set; 0: the mean over all cells of the set
    center_audio: bool = True  # subtract the training set's mean embedding before Eq. 6
    keep_epochs: Annotated[int, Field(ge=2)] = (
        5  # number of epochs whose weights are kept, including the first and the last
    )
    draws: Count = 1  # independent draws of v⁺ and v⁻ from each frame; the loss is the mean of Eq. 7 over them
    delta_v_silent: Fraction | None = (
        None  # x⁻ is R̃ below this, so cells from here to δ_v are in neither set; None: δ_v
    )
    delta_v_start: Fraction | None = None  # δ_v of the first epoch, from where it moves linearly to delta_v at the last
    relation_share: Annotated[float, Field(gt=0, lt=1)] | None = (
        None  # Eq. 6 relates this share of the pairs; None: δ_a
    )
    relation_from: Literal["previous", "initialization", "either"] = "previous"  # the epoch whose ã gives y
    teacher_decay: Annotated[float, Field(ge=0, lt=1)] = (
        0.0  # of the average of weights that gives R̃ and ã; 0: no average
    )
    until_converged: Convergence | None = None  # None: always `epochs`; otherwise `epochs` is the most

    @model_validator(mode="after")
    def _additions_fit(self) -> IterationSettings:
        if self.draws > 1 and not self.cells:
            raise ValueError(
                f"draws {self.draws} with cells 0: there is nothing to draw in a mean over all cells; set one of them to 1"
            )
        for name in ("delta_v", "delta_v_start"):
            threshold = getattr(self, name)
            if None not in (threshold, self.delta_v_silent) and self.delta_v_silent > threshold:
                raise ValueError(f"delta_v_silent {self.delta_v_silent:g} is above {name} {threshold:g}; lower it")
        if self.until_converged and self.delta_v_start is not None:
            raise ValueError(
                "until_converged with delta_v_start: the run could end before δ_v reaches delta_v; set one of them to null"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_defaults_of_ours(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The files and fingerprints of a run that uses none of our settings do not depend on which of them exist.
        fields = type(self).model_fields
        return {k: v for k, v in handler(self).items() if k not in OURS or v != fields[k].default}

    def delta_v_at(self, epoch: int) -> float:
        """Return δ_v of an epoch, from 1 to `epochs`. A single epoch has `delta_v`."""
        if self.delta_v_start is None or self.epochs == 1:
            return self.delta_v
        done = (epoch - 1) / (self.epochs - 1)
        return (1 - done) * self.delta_v_start + done * self.delta_v


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

    @model_validator(mode="after")
    def _has_a_pretrained_backbone(self) -> TrainingSettings:
        encoder = self.encoder
        learns = any(each.weights is not None and each.trainable != "none" for each in (encoder.visual, encoder.audio))
        phases = {"initialize": self.initialize.backbone_learning_rate, "iterate": self.iterate.backbone_learning_rate}
        phases |= {f"methods.{name}": own.get("backbone_learning_rate") for name, own in self.methods.items()}
        for phase, rate in phases.items():
            if rate is not None and not learns:
                raise ValueError(
                    f"{phase}.backbone_learning_rate: no backbone with `weights` is trained; remove the rate, or set `trainable`"
                )
        return self

    @property
    def stored_features(self) -> tuple[Side, ...]:
        """The encoders whose features the stage `features` stores: none, visual, or both.

        Features of the visual backbone are stored if they never change: it is frozen, and frames do not, except for flips. Then those of
        the audio backbone are stored as well if the same holds for it and spectrograms. A frozen backbone without published weights
        differs between seeds, so its features are computed in every epoch.
        """
        moved = self.augmentation
        if not self.encoder.visual.is_fixed or moved.shift_cells or moved.color_jitter:
            return ()
        return ("visual", "audio") if self.encoder.audio.is_fixed and not moved.roll_audio else ("visual",)

    def method(self, name: str, kind: type[Iteration], *, unread: Collection[str] = ()) -> Iteration:
        """Return the settings of one method as an instance of `kind`: `iterate`, overridden by the method's own values.

        Settings in `unread` stay at their defaults, whatever `iterate` has. Raises SettingsError if the method's own values have one.
        """
        if name not in self.methods:
            raise SettingsError(f"methods: no entry for {name!r}; available: {', '.join(self.methods)}")
        if refused := sorted(self.methods[name].keys() & set(unread)):
            raise SettingsError(f"methods.{name}: {name} does not read {', '.join(refused)}; remove it")
        shared = {key: value for key, value in self.iterate.model_dump().items() if key not in unread}
        return validated(kind, {**shared, **kind.FIXED, **self.methods[name]}, f"methods.{name}")


class Params(Settings):
    """params.yaml."""

    dataset: Annotated[str, Field(pattern=DATASET_NAME)]
    variants: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    score_split: str = "test"
    cross_datasets: list[Annotated[str, Field(pattern=DATASET_NAME)]] = Field(
        default_factory=list
    )  # scored too, never used for training
    extract: ExtractSettings
    training: dict[str, TrainingSettings]
    search: SearchSettings = SearchSettings()

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


def load_params(path: Path) -> Params:
    """Read and validate params.yaml.

    Raises
    ------
    SettingsError
        The file is missing or is not YAML, or a setting is unknown, mistyped or out of range.
    """
    return validated(Params, read_settings(path), str(path))
