"""Calibration of "source not found": how strongly a model responds to audio that belongs to the frame, and to audio that does not.

A response map always has a maximum, even if nothing in the frame sounds. Calibration records the maxima on clips that the
model was not trained on. The *confidence* in a new map is the share of those clips, with their own audio, whose maximum is
at most as high. A map with a confidence below `miss_rate` is reported as "not found": the threshold is the `miss_rate`
quantile of the calibration maxima.

Three kinds of foreign audio measure how often frames without a visible source are detected: the audio of another clip,
hiss (white noise), and mains hum. `Calibration.rejected` reports the share of each below the threshold. The shares depend on
the model.

The stage `evaluate` writes ``calibration.json`` next to the response maps of the scored split; ``soundspot calibrate`` writes
it for data without boxes. It describes a finished model: it uses no boxes, and no score or model selection depends on it.
To measure how reliable "not found" is in general, use other clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.common.config import AudioSettings
from pipeline.common.errors import CheckpointError
from pipeline.common.files import file_digest, write_json
from pipeline.common.project import CALIBRATION_FILE, locate
from pipeline.common.reading import read_json
from pipeline.common.seeding import evenly_spaced
from pipeline.common.text_table import counted
from pipeline.evaluation.response_maps import BATCH_SIZE, check_finite, compute_maps, load_model_for
from pipeline.media.log_mel import log_mel_of_windows
from pipeline.model.devices import select_device
from pipeline.scoring.map_file import ResponseMaps
from pipeline.shards.reader import ShardSet

FORMAT_VERSION = 2
MAKE_ONE = "run `dvc repro evaluate` or, without boxes, `soundspot calibrate`"
MISS_RATE = 0.05  # ours
# ours: with 100 clips, a miss rate of 5% is really between 2 and 11%, with 95% probability; with 20, between 1 and 24%
FEW_CLIPS = 100
MAX_NOISE_CLIPS = 256  # ours; the standard error of a share is then at most 3 points
HARMONICS = 10  # of mains hum
_AUDIO_NAMES = {"shuffled": "the audio of another clip", "hum": "mains hum"}
_SHARES = np.linspace(0, 1, 101)  # of the percentiles


@dataclass(frozen=True)
class Calibration:
    """Percentiles of the largest raw response of each map, over the clips of a split.

    Attributes
    ----------
    model : str
        SHA-256 of the calibrated ``model.pt``, hexadecimal.
    split : str
    n_clips : int
    own : sequence of float, length 101
        Percentiles 0 to 100 for frames with their own audio.
    foreign : mapping of str to sequence of float, length 101
        The same for foreign audio: "shuffled" (another clip's), "hiss" and "hum" (at most `MAX_NOISE_CLIPS` frames each).
    """

    model: str
    split: str
    n_clips: int
    own: Sequence[float]
    foreign: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, own: np.ndarray, foreign: Mapping[str, np.ndarray], *, model: str, split: str) -> Calibration:
        """Compute the percentiles from the largest raw response of each frame (frame,), with own and with foreign audio."""
        return cls(
            model, split, len(own), _percentiles(own), {name: _percentiles(peaks) for name, peaks in foreign.items()}
        )

    def confidence(self, peak: float) -> float:
        """Return the share of the clips, with their own audio, whose largest response was at most `peak`."""
        # For equal percentiles np.interp returns the highest share; below all of them it must be 0.
        return 0.0 if peak < self.own[0] else float(np.interp(peak, self.own, _SHARES))

    def rejected(self, miss_rate: float) -> dict[str, float]:
        """Return the share of frames with a confidence below `miss_rate`: for "own" audio, and for each kind of foreign audio."""
        # A peak that is equal to the threshold is at least as high as `miss_rate` of the clips, so it is not rejected.
        threshold = float(np.interp(miss_rate, _SHARES, self.own)) if miss_rate > 0 else -np.inf
        return {name: _share_below(threshold, peaks) for name, peaks in {"own": self.own, **self.foreign}.items()}

    def miss_interval(self, miss_rate: float) -> tuple[float, float]:
        """Return the 95% interval of the share of all frames that are "not found" with their own audio.

        The share below the k-th smallest of n values has the distribution Beta(k, n + 1 - k), whatever that of the values (David and
        Nagaraja, Order Statistics, 2003, section 2.5).
        """
        from scipy.stats import beta

        k = miss_rate * (self.n_clips - 1) + 1  # of the quantile, interpolated
        low, high = beta.ppf((0.025, 0.975), k, self.n_clips + 1 - k)
        return float(low), float(high)

    def describe(self, miss_rate: float = MISS_RATE) -> str:
        """Return one line: what was measured, and how many frames "not found" rejects at this miss rate.

        With few clips the rate is an interval, and the shares for foreign audio, which are no better, are left out.
        """
        on = f"calibrated on {counted(self.n_clips, 'clip')} ({self.split})"
        if self.n_clips < FEW_CLIPS:
            low, high = self.miss_interval(miss_rate)
            return (
                f"{on}, which is few: 'source not found' for {low:.0%} to {high:.0%} of the frames with their own audio (95% "
                f"interval; {miss_rate:.0%} intended); {FEW_CLIPS} clips or more give a reliable rate"
            )
        shares = self.rejected(miss_rate)
        own = shares.pop("own")
        foreign = ", ".join(f"{share:.0%} with {_AUDIO_NAMES.get(name, name)}" for name, share in shares.items())
        return f"{on}: 'source not found' for {own:.0%} of the frames with their own audio, {foreign}"


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write as JSON, atomically."""
    write_json(path, {"format_version": FORMAT_VERSION, **asdict(calibration)})


def read_calibration(path: Path) -> Calibration:
    """Read and check. Raises CheckpointError if the file is missing, damaged, or has another format version."""
    try:
        content = read_json(path, CheckpointError)
        version = content.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}, expected {FORMAT_VERSION}")
        calibration = Calibration(**content)
        for values in (calibration.own, *calibration.foreign.values()):
            if len(values) != len(_SHARES) or np.any(np.diff(np.array(values, dtype=np.float64)) < 0):
                raise ValueError("percentiles must be 101 ascending numbers")
    except (CheckpointError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no usable calibration ({error}); {MAKE_ONE}") from None
    return calibration


def find_calibration(model: Path) -> Calibration | None:
    """Return the calibration of a model file, or None: the one next to it, or the one in the results of its project.

    ``runs/NAME/VARIANT/model.pt`` is calibrated in ``results/NAME/maps/VARIANT``. A calibration of other weights is ignored.
    """
    digest = file_digest(model)
    paths = locate(model)
    for path in (model.with_name(CALIBRATION_FILE), *([paths.calibration] if paths else [])):
        if path.is_file() and (found := read_calibration(path)).model == digest:
            return found
    return None


def calibrate(path: Path, shards: ShardSet, *, split: str, device: str = "auto") -> Calibration:
    """Calibrate a model on a split, without boxes. Arguments and errors: `pipeline.evaluation.response_maps.compute_maps`."""
    return calibrate_on(compute_maps(path, shards, split=split, device=device), path, shards, device=device)


def calibrate_on(maps: ResponseMaps, path: Path, shards: ShardSet, *, device: str = "auto") -> Calibration:
    """Calibrate a model whose response maps on the same clips have already been computed."""
    return Calibration.of(
        _peaks(maps.response),
        {"shuffled": _peaks(maps.shuffled_response), **noise_peaks(path, shards, device=device)},
        model=file_digest(path),
        split=maps.split,
    )


def noise_peaks(path: Path, shards: ShardSet, *, device: str = "auto") -> dict[str, np.ndarray]:
    """Return the largest raw response of frames whose audio is replaced by noise, for each kind of noise.

    Parameters
    ----------
    path : Path
        ``model.pt``.
    shards : ShardSet
        At most `MAX_NOISE_CLIPS` evenly spaced frames are used. The noise is seeded by a frame's position among them.
    device : str

    Returns
    -------
    dict of str to np.ndarray (frame,) float32
        Keys as in `NOISES`.

    Raises
    ------
    CheckpointError, EvaluationError, TrainingError
        The model cannot be read, or a response is not finite; the clips were extracted with other settings; the device does not exist.
    """
    model = load_model_for(path, shards)
    where = select_device(device)
    model.to(where)
    audio = AudioSettings(**model.description["audio"])
    rows = evenly_spaced(len(shards), MAX_NOISE_CLIPS)
    peaks: dict[str, list[np.ndarray]] = {name: [] for name in NOISES}
    for start in range(0, len(rows), BATCH_SIZE):
        some = rows[start : start + BATCH_SIZE]
        frames = torch.from_numpy(shards.read(some)[0]).permute(0, 3, 1, 2).to(where)  # n H W c -> n c H W
        for name, make in NOISES.items():
            seeds = range(start, start + len(some))
            windows = [make(audio.n_samples, audio.sample_rate, np.random.default_rng(seed)) for seed in seeds]
            response, _ = model.localize(frames, log_mel_of_windows(windows, audio).to(where))
            peaks[name].append(_peaks(response.float().cpu().numpy()))
    joined = {name: np.concatenate(parts) for name, parts in peaks.items()}
    check_finite(path, *joined.values())
    return joined


def hiss(n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Return white noise, float64 (sample,)."""
    return generator.standard_normal(n_samples)


def hum(n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Return mains hum, float64 (sample,): harmonics of 50 or 60 Hz with amplitude 1/k and random phases."""
    order = np.arange(1, HARMONICS + 1)[:, None]
    frequency = order * generator.choice([50.0, 60.0])
    turns = frequency * np.arange(n_samples) / sample_rate + generator.random((HARMONICS, 1))
    # Harmonics above the Nyquist frequency would alias.
    audible = frequency < sample_rate / 2
    return np.asarray((np.sin(2 * np.pi * turns) * audible / order).sum(axis=0))


NOISES: Mapping[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {"hiss": hiss, "hum": hum}


def _peaks(maps: np.ndarray) -> np.ndarray:
    return np.asarray(maps.max(axis=(1, 2)))


def _share_below(threshold: float, percentiles: Sequence[float]) -> float:
    """Return the share of values strictly below a threshold, interpolated between percentiles."""
    above = int(np.searchsorted(percentiles, threshold))  # of the lowest percentile that is not below
    if above == 0 or above == len(percentiles):
        return float(above > 0)
    low, high = percentiles[above - 1], percentiles[above]
    return float(_SHARES[above - 1] + (threshold - low) / (high - low) * (_SHARES[above] - _SHARES[above - 1]))


def _percentiles(peaks: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(peaks.astype(np.float64), _SHARES)]
