"""The dataset card ``dataset.yaml``: how media become frames and spectrograms, and how the dataset is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from pipeline.common.config.base import Count, EvenCount, Fraction, Positive, Settings, read_settings, validated
from pipeline.common.project import CARD_FILE


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
    grid: Annotated[int, Field(ge=2)] | None = None  # cells per side if frames are mosaics; adds quadrant accuracy


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


def load_card(folder: Path) -> Card:
    """Read and validate the card ``dataset.yaml`` in a manifest folder. Raises SettingsError; the message names the key and the value."""
    path = folder / CARD_FILE
    return validated(Card, read_settings(path), str(path))
