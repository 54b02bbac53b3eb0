"""How strongly a model responds to sounds that belong to the frame, so that a weak response can be told from a usual one.

A response map always has a maximum, also where nothing in the frame sounds. How high it is with a frame's own sound is
measured on clips that the model has not seen; the share of them whose largest response was no higher than a new one is the
*confidence* in the new one. A map whose confidence is below `miss_rate` is taken for "not found": by construction, so would
be that share of the calibration clips themselves. How many frames are told apart in this way when they get a sound that is not
theirs (of another clip, hiss, hum) depends on the model; `rejected` says it.

``calibration.json`` is written beside the response maps of the scored split, which is the test split unless `score_split` says
otherwise; ``soundspot calibrate`` writes it where there are no boxes to score with. It describes a finished model; no box is
looked at, and no score and no choice of a model depends on it. How well "not found" works in general has to be measured on
other clips.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.common.errors import CheckpointError
from pipeline.common.files import file_digest, write_json
from pipeline.common.project import CALIBRATION_FILE, locate

FORMAT_VERSION = 2
MAKE_ONE = "run `dvc repro evaluate` or, without boxes, `soundspot calibrate`"
MISS_RATE = 0.05  # ours
_NAMES = {"shuffled": "the sound of another", "hum": "mains hum"}
_SHARES = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Calibration:
    """Percentiles of the largest raw response of a map, over the clips of a split.

    Attributes
    ----------
    model : str
        SHA-256 of the ``model.pt`` that it belongs to, hexadecimal.
    split : str
    n_clips : int
    own : sequence of float, length 101
        The 0th to the 100th percentile, for frames with their own sound.
    foreign : mapping of str to sequence of float, length 101
        The same for frames with a sound that is not theirs: "shuffled", of another clip; "hiss" and "hum", of at most 256
        frames, see `pipeline.evaluation.calibrating`.
    """

    model: str
    split: str
    n_clips: int
    own: Sequence[float]
    foreign: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, own: np.ndarray, foreign: Mapping[str, np.ndarray], *, model: str, split: str) -> Calibration:
        """Measure on the largest raw response of each frame, (frame,), with its own and with foreign sounds."""
        return cls(
            model, split, len(own), _percentiles(own), {name: _percentiles(peaks) for name, peaks in foreign.items()}
        )

    def confidence(self, peak: float) -> float:
        """Return the share of the clips, with their own sound, whose largest response was at most `peak`."""
        # Equal percentiles at either end would give their highest share, where the lowest is meant.
        return 0.0 if peak < self.own[0] else float(np.interp(peak, self.own, _SHARES))

    def rejected(self, miss_rate: float) -> dict[str, float]:
        """Return the share of the frames with each kind of foreign sound whose confidence is below `miss_rate`."""
        threshold = np.interp(miss_rate, _SHARES, self.own)
        return {name: float(np.interp(threshold, peaks, _SHARES, left=0.0)) for name, peaks in self.foreign.items()}

    def describe(self, miss_rate: float = MISS_RATE) -> str:
        """Say in a line what was measured, and how much "not found" catches at a miss rate."""
        told = ", ".join(
            f"{share:.0%} with {_NAMES.get(name, name)}" for name, share in self.rejected(miss_rate).items()
        )
        return (
            f"calibrated on {self.n_clips} clips ({self.split}): 'source not found' is said of {miss_rate:.0%} of those with "
            f"their own sound, {told}"
        )


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write as JSON, whole or not at all."""
    write_json(path, {"format_version": FORMAT_VERSION, **asdict(calibration)})


def read_calibration(path: Path) -> Calibration:
    """Read and check. Raises CheckpointError where the file is missing, damaged, or of another format version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format_version") != FORMAT_VERSION:
            raise ValueError("of another format version")
        calibration = Calibration(**content)
        for values in (calibration.own, *calibration.foreign.values()):
            if len(values) != len(_SHARES) or np.any(np.diff(np.array(values, dtype=np.float64)) < 0):
                raise ValueError("percentiles are not 101 rising numbers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no usable calibration ({error}); {MAKE_ONE}") from None
    return calibration


def find_calibration(model: Path) -> Calibration | None:
    """Return the calibration of a model: that beside it, or that in the results of its project; None where there is none.

    ``runs/NAME/VARIANT/model.pt`` is evaluated in ``results/NAME/maps/VARIANT``. A calibration of other weights is none.
    """
    digest = model_digest(model)
    paths = locate(model)
    for path in (model.with_name(CALIBRATION_FILE), *([paths.calibration] if paths else [])):
        if path.is_file() and (found := read_calibration(path)).model == digest:
            return found
    return None


def model_digest(path: Path) -> str:
    """Return the SHA-256 of a model's file, hexadecimal."""
    return file_digest(path)


def _percentiles(peaks: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(peaks.astype(np.float64), _SHARES)]
