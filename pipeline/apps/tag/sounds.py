"""Taggers of audio: models that take a waveform and return the probability of each tag, such as YAMNet and PANNs.

Conventions
-----------
A waveform is mono, float32, with a largest magnitude of 1. The input of a model is (samples,), (1, samples) or (1, 1, samples). If the
file fixes the number of samples, the clip is cut into windows without a gap, the last of which ends with the clip; a shorter clip is
padded with silence at its end. Outputs are (…, tag). Their mean over windows, and over the model's own time steps, counts: that is how
YAMNet's authors tag a clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.apps.tag.classes import ClassList, read_class_names
from pipeline.apps.tag.runtimes import open_model, run_model
from pipeline.common.errors import MediaError, TaggingError
from pipeline.common.files import file_digest, fingerprint

SAMPLE_RATE = "sample_rate"  # metadata of an ONNX file that makes --sample-rate unnecessary
_ROUNDING = 1.0e-3  # by which a probability may leave [0, 1]


@dataclass(frozen=True)
class SoundModel:
    """Which tagger to use.

    Attributes
    ----------
    path : Path
        An ``.onnx`` or ``.tflite`` file.
    labels : Path
        Names of its tags, see `read_class_names`.
    sample_rate : int or None
        Hz; None reads it from the file's metadata.
    logits : bool
        The outputs are logits, so a sigmoid is applied; otherwise they are probabilities.
    """

    path: Path
    labels: Path
    sample_rate: int | None = None
    logits: bool = False

    exclusive = False

    def load(self) -> SoundTagger:
        """Load the tagger. Raises TaggingError or PackageError if that is not possible."""
        return SoundTagger(self)


class SoundTagger:
    """A loaded tagger; call it with a waveform.

    Attributes
    ----------
    classes : ClassList
    sample_rate : int
        Hz, that of the waveforms.
    digest : str
        Of the file and how it is used.
    """

    def __init__(self, model: SoundModel) -> None:
        self.path, self.logits = model.path, model.logits
        self.classes: ClassList = read_class_names(model.labels)
        self._model = open_model(model.path)
        self.sample_rate = model.sample_rate or _stated_rate(model.path, self._model.metadata)
        shape = self._model.input_shape
        if not 1 <= len(shape) <= 3 or any(size not in (1, None) for size in shape[:-1]):
            shown = " × ".join("any" if size is None else str(size) for size in shape)
            raise TaggingError(
                f"{model.path}: its input is {shown}, not a waveform: samples, 1 × samples, or 1 × 1 × samples; "
                "models that take spectrograms cannot be used"
            )
        self._leading, self._length = (1,) * (len(shape) - 1), shape[-1]
        self._output = self._find_output()
        self.digest = fingerprint([file_digest(model.path), self.sample_rate, self.logits])

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return the probability of each tag: (samples,) float32 -> (tag,) float32.

        Raises
        ------
        MediaError
            The model returns non-finite values for this waveform.
        TaggingError
            It fails, or returns no probabilities.
        """
        scores = [self._scores(window) for window in _windows(waveform, self._length)]
        return np.asarray(np.mean(scores, axis=0, dtype=np.float32))

    def _scores(self, window: np.ndarray) -> np.ndarray:
        output: np.ndarray = self._run(window)[self._output].astype(np.float32)
        if not np.isfinite(output).all():
            raise MediaError(f"{self.path}: returns non-finite values for this clip")
        if self.logits:
            output = np.asarray(1 / (1 + np.exp(-np.clip(output, -80, 80))))
        elif output.min() < -_ROUNDING or output.max() > 1 + _ROUNDING:
            raise TaggingError(
                f"{self.path}: returns values from {output.min():.3g} to {output.max():.3g}, which are not probabilities; pass "
                "--sound-logits if they are logits"
            )
        return np.asarray(output.reshape(-1, output.shape[-1]).mean(axis=0))

    def _run(self, window: np.ndarray) -> list[np.ndarray]:
        return run_model(self._model, self.path, window.reshape(*self._leading, -1))

    def _find_output(self) -> int:
        """Return the number of the output with one value per tag; of several, the one without time steps."""
        outputs = self._run(np.zeros(self._length or self.sample_rate, np.float32))
        n_tags = len(self.classes.names)
        fitting = [number for number, each in enumerate(outputs) if each.shape[-1:] == (n_tags,)]
        if not fitting:
            shapes = ", ".join(str(each.shape) for each in outputs)
            raise TaggingError(
                f"{self.path}: no output has {n_tags} values, the number of --sound-labels; they are {shapes}"
            )
        return min(fitting, key=lambda number: outputs[number].size)


def _windows(waveform: np.ndarray, length: int | None) -> list[np.ndarray]:
    """Cut a waveform into windows of `length` samples; None for the whole."""
    if length is None:
        return [waveform]
    if len(waveform) <= length:
        return [np.pad(waveform, (0, length - len(waveform)))]
    starts = [*range(0, len(waveform) - length, length), len(waveform) - length]
    return [waveform[start : start + length] for start in starts]


def _stated_rate(path: Path, metadata: dict[str, str]) -> int:
    text = metadata.get(SAMPLE_RATE, "")
    if not text.isdigit() or int(text) == 0:
        raise TaggingError(
            f"{path}: does not state its sample rate; pass --sample-rate, such as 16000 for YAMNet or 32000 for PANNs"
        )
    return int(text)
