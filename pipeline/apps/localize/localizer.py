"""A trained model on one's own frames and sounds: response maps, and whether there is anything to hear or to find.

Conventions
-----------
Frames are uint8 RGB (row, col, 3) of any size; windows of sound are float32 (sample,) at the model's sample rate, at the level
of the file. Both are prepared exactly as extraction prepares clips. Raw response maps R are (h, w), in cells of the model.

There are three verdicts. "silent": the loudest sample of the window, a constant offset taken off, lies below `silence_dbfs`, so
there is nothing to localize.
"not found": the model responds so weakly that fewer than `miss_rate` of the calibration clips had no stronger response; only
with a calibration (see `pipeline.evaluation.calibration`). "sounding": all else. The second is a statement about the model, not about the
world: it tells only some of the sounds that come from outside the frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from pipeline.apps.localize.regions import Region, sounding_boxes
from pipeline.common.config import AudioSettings
from pipeline.common.errors import CheckpointError, MediaError
from pipeline.evaluation.calibration import (
    MAKE_ONE,
    MISS_RATE,
    Calibration,
    find_calibration,
    model_digest,
    read_calibration,
)
from pipeline.figures.heatmap import enlarged
from pipeline.media.audio import DecodedAudio, assemble
from pipeline.media.log_mel import log_mel_of_windows
from pipeline.media.video import squash
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.inference import select_device
from pipeline.scoring.protocols import Normalization
from pipeline.scoring.upsampling import normalize
from pipeline.training.checkpoints import load_model

# ours: 16 steps of 16-bit sound. Scaled to full range, what lies below is the noise of a recorder or of a codec.
SILENCE_DBFS = -66.0
REGION_GRID = 256  # pixels a side of the grid that regions are found on, as that of the paper's evaluation

Verdict = Literal["sounding", "silent", "not found"]


@dataclass(frozen=True)
class Localization:
    """What the model says of one frame and one window of sound.

    Attributes
    ----------
    verdict : str
        "sounding", "silent" or "not found".
    response : np.ndarray [shape=(h, w)]
        R, float32; zeros for a silent window, which the model is not asked about.
    level_dbfs : float
        Of the window's loudest sample, a constant offset taken off; -inf for digital silence.
    confidence : float or None
        Share of the calibration clips that had no stronger response; None without calibration or sound.
    """

    verdict: Verdict
    response: np.ndarray
    level_dbfs: float
    confidence: float | None


class Localizer:
    """A model that describes itself, ready to be asked.

    Parameters
    ----------
    model : TrainedModel
    audio : AudioSettings
        How windows become spectrograms.
    image_size : int > 0
        Side that frames are squashed to.
    delta_v : float in [0, 1]
        Eq. 2.
    device : str
        auto, cpu, cuda or cuda:N.
    calibration : Calibration, optional
    silence_dbfs : float <= 0
    miss_rate : float in [0, 1]
        0 finds everywhere.
    name : str
        SHA-256 of the model's file.

    Raises
    ------
    ValueError
        `silence_dbfs` or `miss_rate` is out of its range.
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
        # As comparisons that hold, since none holds of "not a number".
        if not silence_dbfs <= 0:
            raise ValueError(f"silence_dbfs must be at most 0, full scale, got {silence_dbfs}")
        if not 0 <= miss_rate <= 1:
            raise ValueError(f"miss_rate must be a share, 0 to 1, got {miss_rate}")
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
        """Load ``model.pt``; nothing else is needed.

        Parameters
        ----------
        path : Path or str
        calibration : Path or str, optional
            ``calibration.json``; by default the one beside the model or in the results of its project, if any.
        **settings
            `device`, `silence_dbfs` and `miss_rate`, as for the class.

        Raises
        ------
        CheckpointError
            The model is missing, damaged or of another version, or the calibration is, or belongs to another model.
        TrainingError
            There is no such device.
        """
        path = Path(path)
        model = load_model(path)
        description = model.description
        digest = model_digest(path)
        if calibration is None:
            found = find_calibration(path)
        else:
            found = read_calibration(Path(calibration))
            if found.model != digest:
                raise CheckpointError(f"{calibration}: calibrates other weights than {path}; {MAKE_ONE}")
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
        """Return the raw response map in the frame's size.

        Parameters
        ----------
        frame : np.ndarray [shape=(row, col, 3), dtype=uint8]
            RGB.
        audio : np.ndarray [shape=(sample,) or (channel, sample)]
            What soundfile and scipy read is (sample, channel): give its ``.T``. Floating with full scale 1, or signed
            integers. The model hears the `clip_seconds` around its middle; a shorter sound is padded with zeros on both sides.
        sample_rate : int > 0
            Hz, of `audio`.

        Returns
        -------
        np.ndarray [shape=(row, col)]
            R, float32, enlarged bilinearly; the largest value is where the sound comes from, if the source is in the frame:
            a verdict "not found" is told by `localize_batch` only.

        Raises
        ------
        MediaError
            The sound is silent.
        ValueError
            An array is of another shape or type, or the sample rate is not positive.
        """
        found = self.localize_batch([frame], [self.window(audio, sample_rate)])[0]
        if found.verdict == "silent":
            raise MediaError(f"the sound is silent ({found.level_dbfs:.0f} dBFS); there is nothing to localize")
        return enlarged(found.response, height=frame.shape[0], width=frame.shape[1])

    def window(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return the window of sound around the middle of `audio`, as for `localize`: float32 (sample,)."""
        if not 0 < sample_rate < math.inf:
            raise ValueError(f"sample_rate must be a positive number of Hz, got {sample_rate}; give that of `audio`")
        if audio.ndim not in (1, 2) or audio.dtype.kind not in "fi" or not audio.size or not np.isfinite(audio).all():
            raise ValueError(
                f"audio must be finite floats or signed integers, (sample,) or (channel, sample), got {audio.shape} "
                f"{audio.dtype}"
            )
        if audio.ndim == 2 and audio.shape[0] > audio.shape[1]:
            raise ValueError(
                f"audio must be (channel, sample), got {audio.shape}: more channels than samples; give audio.T"
            )
        full_scale = -float(np.iinfo(audio.dtype).min) if audio.dtype.kind == "i" else 1.0
        mono = np.atleast_2d(audio).mean(axis=0, dtype=np.float32) / np.float32(full_scale)
        begin_s = (self.audio.clip_seconds - len(mono) / sample_rate) / 2
        heard = DecodedAudio(sample_rate, begin_s, [begin_s], [mono])
        return assemble(heard, sample_rate=self.audio.sample_rate, length=self.audio.n_samples)

    def localize_batch(self, frames: Sequence[np.ndarray], windows: Sequence[np.ndarray]) -> list[Localization]:
        """Ask the model about several frames with their windows of sound at once.

        Parameters
        ----------
        frames : sequence of np.ndarray (row, col, 3) uint8
            Of any size; those of the model's own are taken as they are.
        windows : sequence of np.ndarray (sample,) float32
            As many; `pipeline.apps.localize.sliding_windows` and `window` make them.

        Returns
        -------
        list of Localization
        """
        levels = [level_dbfs(_without_offset(window)) for window in windows]
        asked = [i for i, level in enumerate(levels) if level > self.silence_dbfs]
        maps = self._respond([frames[i] for i in asked], [windows[i] for i in asked]) if asked else None
        nothing = np.zeros((1, 1) if maps is None else maps.shape[1:], dtype=np.float32)
        found = [Localization("silent", nothing, level, None) for level in levels]
        for row, i in enumerate(asked):
            response = maps[row] if maps is not None else nothing
            confidence = self.calibration.confidence(float(response.max())) if self.calibration else None
            missed = confidence is not None and confidence < self.miss_rate
            found[i] = Localization("not found" if missed else "sounding", response, levels[i], confidence)
        return found

    def heat(self, response: np.ndarray) -> np.ndarray:
        """R̃, the map normalized to [0, 1] by the model's method (Eq. 1, second line): float32 of the same shape."""
        heat: np.ndarray = normalize(response[None], self._normalization).cells[0]
        return heat

    def regions(self, response: np.ndarray) -> list[Region]:
        """Return the connected parts of the sounding region (Eq. 2) of a raw map, the strongest first."""
        size = {"height": REGION_GRID, "width": REGION_GRID}
        return sounding_boxes(enlarged(self.heat(response), **size), enlarged(response, **size), delta_v=self.delta_v)

    def _respond(self, frames: Sequence[np.ndarray], windows: Sequence[np.ndarray]) -> np.ndarray:
        spectra = log_mel_of_windows(windows, self.audio)
        pixels = torch.from_numpy(np.stack([self._squashed(frame) for frame in frames])).permute(0, 3, 1, 2)
        maps, _ = self.model.localize(pixels.to(self.device), spectra.to(self.device))
        return maps.float().cpu().numpy()

    def _squashed(self, frame: np.ndarray) -> np.ndarray:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ValueError(f"a frame must be (row, col, 3) uint8, got {frame.shape} {frame.dtype}")
        if frame.shape[:2] == (self.image_size, self.image_size):
            return frame
        return squash(Image.fromarray(frame), self.image_size)


def level_dbfs(window: np.ndarray) -> float:
    """Return the level of the loudest sample, in decibels below full scale 1; -inf for digital silence."""
    peak = float(np.abs(window).max(initial=0.0))
    return 20 * math.log10(peak) if peak > 0 else -math.inf


def _without_offset(window: np.ndarray) -> np.ndarray:
    """Return a window less its mean: a recorder's constant offset is not heard, and does not make faint hiss loud."""
    heard = np.flatnonzero(window)
    # The zeros around a sound that begins or ends within the window are no part of it: they would make a step of an offset. Where
    # most of the window is zeros, what is left may be a click, which has no offset.
    if len(heard) and 2 * (heard[-1] + 1 - heard[0]) >= len(window):
        window = window[heard[0] : heard[-1] + 1]
    return window - window.mean() if len(window) else window
