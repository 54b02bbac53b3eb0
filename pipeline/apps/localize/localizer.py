"""Run a trained model on frames and audio arrays: response maps and verdicts.

Conventions
-----------
Frames are uint8 RGB (row, col, 3) of any size. Audio windows are float32 (sample,) at the model's sample rate and at the
original level. Both are preprocessed exactly as extraction does for clips. Raw response maps R are (h, w), in cells of
the model.

There are three verdicts:

- "silent": the peak of the window, after removing a constant offset, is below `silence_dbfs`; there is nothing to
  localize.
- "not found": the response is so weak that fewer than `miss_rate` of the calibration clips had no stronger one.
  Requires a calibration (see `pipeline.evaluation.calibration`). It describes the model's confidence, not whether a
  source is really visible, and it catches only some off-screen sounds.
- "sounding": everything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from pipeline.apps.localize.regions import Region, connected_regions
from pipeline.common.config import AudioSettings
from pipeline.common.errors import CheckpointError, MediaError
from pipeline.common.files import file_digest
from pipeline.evaluation.calibration import (
    MAKE_ONE,
    MISS_RATE,
    Calibration,
    find_calibration,
    read_calibration,
)
from pipeline.figures.heatmap import upsampled
from pipeline.media.audio import assemble
from pipeline.media.audio_blocks import AudioBlock, Run
from pipeline.media.log_mel import log_mel_of_windows
from pipeline.media.video import squash
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.devices import select_device
from pipeline.scoring.protocols import Normalization
from pipeline.scoring.upsampling import normalize
from pipeline.training.checkpoints import load_model

# Our choice: 16 steps of 16-bit audio. Windows are scaled to full range, and quieter ones contain only recorder or codec noise.
SILENCE_DBFS = -66.0
REGION_GRID = 256  # side in pixels of the grid on which regions are found, the same as in the paper's evaluation

Verdict = Literal["sounding", "silent", "not found"]


@dataclass(frozen=True)
class Localization:
    """The model's result for one frame and one audio window.

    Attributes
    ----------
    verdict : str
        "sounding", "silent" or "not found".
    response : np.ndarray [shape=(h, w)]
        R, float32; zeros for a silent window, on which the model is not run.
    level_dbfs : float
        Peak level of the window after removing a constant offset; -inf for digital silence.
    confidence : float or None
        Fraction of the calibration clips that had no stronger response; None without calibration or for silence.
    """

    verdict: Verdict
    response: np.ndarray
    level_dbfs: float
    confidence: float | None


class Localizer:
    """A trained model with its preprocessing settings, ready for inference.

    Parameters
    ----------
    model : TrainedModel
    audio : AudioSettings
        Log-mel settings.
    image_size : int > 0
        Side of the square that frames are squashed to, pixels.
    delta_v : float in [0, 1]
        Threshold of the sounding region (Eq. 2).
    device : str
        auto, cpu, cuda or cuda:N.
    calibration : Calibration, optional
    silence_dbfs : float <= 0
    miss_rate : float in [0, 1]
        0 disables "not found".
    name : str
        SHA-256 of the model's file.

    Raises
    ------
    ValueError
        `silence_dbfs` or `miss_rate` is out of range.
    """

    def __init__(
        self,
        model: TrainedModel,
        *,
        audio: AudioSettings,
        image_size: int,
        delta_v: float,
        device: str = "auto",
        calibration: Calibration | None = None,
        silence_dbfs: float = SILENCE_DBFS,
        miss_rate: float = MISS_RATE,
        name: str = "",
    ) -> None:
        # Negated comparisons reject NaN too.
        if not silence_dbfs <= 0:
            raise ValueError(f"silence_dbfs must be at most 0 (full scale), got {silence_dbfs}")
        if not 0 <= miss_rate <= 1:
            raise ValueError(f"miss_rate must be between 0 and 1, got {miss_rate}")
        self.device = select_device(device)
        self.model = model.to(self.device)
        self.audio = audio
        self.image_size = image_size
        self.delta_v = delta_v
        self.calibration = calibration
        self.silence_dbfs = silence_dbfs
        self.miss_rate = miss_rate
        self.name = name
        self._normalization: Normalization = model.normalization or "min-max"

    @classmethod
    def load(cls, path: Path | str, *, calibration: Path | str | None = None, **settings: Any) -> Localizer:
        """Load ``model.pt``, which contains all settings.

        Parameters
        ----------
        path : Path or str
        calibration : Path or str, optional
            ``calibration.json``. Default: the one next to the model or in its project's results, if any.
        **settings
            `device`, `silence_dbfs` and `miss_rate`, passed to the constructor.

        Raises
        ------
        CheckpointError
            The model or the calibration is missing, damaged or of another version, or the calibration belongs to another
            model.
        TrainingError
            The device is not available.
        """
        path = Path(path)
        model = load_model(path)
        description = model.description
        digest = file_digest(path)
        if calibration is None:
            found = find_calibration(path)
        else:
            found = read_calibration(Path(calibration))
            if found.model != digest:
                raise CheckpointError(f"{calibration}: was made for other weights than {path}; {MAKE_ONE}")
        return cls(
            model,
            audio=AudioSettings(**description["audio"]),
            image_size=description["image_size"],
            delta_v=description["delta_v"],
            calibration=found,
            name=digest,
            **settings,
        )

    def localize(self, frame: np.ndarray, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return the raw response map at the frame's size.

        Parameters
        ----------
        frame : np.ndarray [shape=(row, col, 3), dtype=uint8]
            RGB.
        audio : np.ndarray [shape=(sample,) or (channel, sample)]
            Floating point with full scale 1, or signed integers. soundfile and scipy return (sample, channel); pass the
            transpose. The middle `clip_seconds` are used; shorter audio is zero-padded on both sides.
        sample_rate : int > 0
            Sample rate of `audio`, Hz.

        Returns
        -------
        np.ndarray [shape=(row, col)]
            R, float32, upsampled bilinearly. The maximum is where the sound comes from, if its source is in the frame;
            only `localize_batch` reports the verdict "not found".

        Raises
        ------
        MediaError
            The audio is silent.
        ValueError
            An array has the wrong shape or type, or the sample rate is not positive.
        """
        found = self.localize_batch([frame], [self.window(audio, sample_rate)])[0]
        if found.verdict == "silent":
            raise MediaError(f"the audio is silent ({found.level_dbfs:.0f} dBFS); there is nothing to localize")
        return upsampled(found.response, height=frame.shape[0], width=frame.shape[1])

    def window(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return the window around the middle of `audio` (see `localize`): float32 (sample,)."""
        if not (0 < sample_rate < math.inf and sample_rate == int(sample_rate)):
            raise ValueError(f"sample_rate must be a positive whole number, got {sample_rate}; pass that of `audio`")
        sample_rate = int(sample_rate)
        if audio.ndim not in (1, 2) or audio.dtype.kind not in "fi" or not audio.size or not np.isfinite(audio).all():
            raise ValueError(
                f"audio must be finite floats or signed integers, (sample,) or (channel, sample), got {audio.shape} "
                f"{audio.dtype}"
            )
        if audio.ndim == 2 and audio.shape[0] > audio.shape[1]:
            raise ValueError(
                f"audio must be (channel, sample), got {audio.shape}: more channels than samples; pass audio.T"
            )
        full_scale = -float(np.iinfo(audio.dtype).min) if audio.dtype.kind == "i" else 1.0
        channels = np.atleast_2d(audio).astype(np.float32) / np.float32(full_scale)
        # The same code path as for files, so that arrays and files give equal windows.
        block = AudioBlock(channels, Run(Fraction(0), sample_rate))
        start = (Fraction(channels.shape[1], sample_rate) - Fraction(self.audio.clip_seconds)) / 2
        return assemble([block], start, sample_rate=self.audio.sample_rate, length=self.audio.n_samples)

    def localize_batch(self, frames: Sequence[np.ndarray], windows: Sequence[np.ndarray]) -> list[Localization]:
        """Run the model on a batch of frames and their audio windows.

        Parameters
        ----------
        frames : sequence of np.ndarray (row, col, 3) uint8
            Of any size; frames of the model's input size are not resized.
        windows : sequence of np.ndarray (sample,) float32
            One per frame, from `pipeline.apps.localize.sliding_windows` or `window`.

        Returns
        -------
        list of Localization
        """
        # Silent windows are not passed to the model, whose preprocessing would scale their noise to full level.
        levels = [level_dbfs(_without_offset(window)) for window in windows]
        audible = [i for i, level in enumerate(levels) if level > self.silence_dbfs]
        maps = self._respond([frames[i] for i in audible], [windows[i] for i in audible]) if audible else None
        nothing = np.zeros((1, 1) if maps is None else maps.shape[1:], dtype=np.float32)
        found = [Localization("silent", nothing, level, None) for level in levels]
        for row, i in enumerate(audible):
            response = maps[row] if maps is not None else nothing
            confidence = self.calibration.confidence(float(response.max())) if self.calibration else None
            missed = confidence is not None and confidence < self.miss_rate
            found[i] = Localization("not found" if missed else "sounding", response, levels[i], confidence)
        return found

    def heat(self, response: np.ndarray) -> np.ndarray:
        """Return R̃, the map normalized to [0, 1] by the model's method (Eq. 1, second line): float32, same shape."""
        heat: np.ndarray = normalize(response[None], self._normalization).cells[0]
        return heat

    def regions(self, response: np.ndarray) -> list[Region]:
        """Return the connected sounding regions (Eq. 2) of a raw map, the strongest first."""
        # The scores are raw responses, because the normalized map has a maximum of 1 for any input.
        size = {"height": REGION_GRID, "width": REGION_GRID}
        heat, scores = (upsampled(each, **size) for each in (self.heat(response), response))
        return connected_regions(heat, scores, delta_v=self.delta_v)

    def _respond(self, frames: Sequence[np.ndarray], windows: Sequence[np.ndarray]) -> np.ndarray:
        spectra = log_mel_of_windows(windows, self.audio)
        pixels = torch.from_numpy(np.stack([self._squashed(frame) for frame in frames])).permute(0, 3, 1, 2)
        maps, _ = self.model.localize(pixels.to(self.device), spectra.to(self.device))
        if not torch.isfinite(maps).all():
            raise CheckpointError("the model's responses are not finite, so its weights are unusable; train it again")
        return maps.float().cpu().numpy()

    def _squashed(self, frame: np.ndarray) -> np.ndarray:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ValueError(f"a frame must be (row, col, 3) uint8, got {frame.shape} {frame.dtype}")
        if frame.shape[:2] == (self.image_size, self.image_size):
            return frame
        return squash(Image.fromarray(frame), self.image_size)


def level_dbfs(window: np.ndarray) -> float:
    """Return the peak level in dB relative to full scale 1; -inf for digital silence."""
    peak = float(np.abs(window).max(initial=0.0))
    return 20 * math.log10(peak) if peak > 0 else -math.inf


def _without_offset(window: np.ndarray) -> np.ndarray:
    """Subtract the mean of a window: a recorder's DC offset is inaudible, and must not make faint hiss count as loud."""
    nonzero = np.flatnonzero(window)
    # Exclude the zero padding where audio starts or ends within the window, because it would turn an offset into a step. If most
    # of the window is zero, the rest may be a click, which has no offset.
    if len(nonzero) and 2 * (nonzero[-1] + 1 - nonzero[0]) >= len(window):
        window = window[nonzero[0] : nonzero[-1] + 1]
    return window - window.mean() if len(window) else window
