"""The evaluation protocols of the field, each a named object.

Numbers published in different papers are not comparable: maps are normalized, upsampled and thresholded differently, which
changes the score of the same predictor by tens of points. Each protocol is spelled out here, so that one model can be
scored under all of them (`pipeline.scoring.score`).

Conventions
-----------
A response map is raw (row, col), on any scale. A protocol normalizes it, upsamples it to ``size`` × ``size``, and
thresholds it. Normalizations:

- "min-max": scale the raw map to [0, 1] (Eq. 1), then upsample.
- "min-max-enlarged": upsample, then scale to [0, 1]. This differs for a fixed threshold, because interpolation can miss
  the peak.
- "relu-max": clip negative responses to 0, upsample, divide by the maximum.

"bilinear" without aligned corners equals OpenCV's linear resize (half-pixel centers).

MSSL, LVS, EZ-VSL, SLAVC, SSPL, SSLalignment and DSOL refer to the public repositories of those systems.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.common.errors import EvaluationError

Rounding = Literal["nearest", "floor", "one-based-floor", "xywh-floor"]
Consensus = Literal["annotators", "union", "per-source"]
Normalization = Literal["min-max", "min-max-enlarged", "relu-max"]
Interpolation = Literal["bilinear", "bicubic"]
ThresholdRule = Literal["fixed", "relative-to-max", "median", "oracle-area"]
Comparator = Literal[">", ">="]
Extra = Literal["iiou", "slavc", "nsa"]


@dataclass(frozen=True)
class ScoringProtocol:
    """Rules that turn a response map and boxes into a score.

    Parameters
    ----------
    name : str
        Key of `get_protocol`.
    source : str
        Where the protocol comes from and what it is used for.
    size : int
        Side of the grid on which map and boxes are compared, in pixels.
    rounding : str
        How box edges become pixels, see `pipeline.scoring.ground_truth.pixel_edges`.
    consensus : str
        How boxes become the consensus map, see `pipeline.scoring.ground_truth.ground_truth`. With "per-source", the cIoU and
        IoU of a clip are means over its sounding sources.
    normalization : {"min-max", "min-max-enlarged", "relu-max"}
        See the module's conventions.
    interpolation : {"bilinear", "bicubic"}
        How the map is upsampled.
    align_corners : bool
        Whether the centers of the outermost cells coincide with the outermost pixels.
    threshold_rule : {"fixed", "relative-to-max", "median", "oracle-area"}
        - "fixed": `map_threshold` on the normalized map.
        - "relative-to-max": `map_threshold` times the maximum of the upsampled map.
        - "median": the value at index N // 2 of the N sorted pixels.
        - "oracle-area": the value at index N - k, where k is the number of pixels with g > 0 (N // 2 if none). It uses
          the area of the ground truth.
    map_threshold : float
        See `threshold_rule`; not used by the last two.
    comparator : {">", ">="}
        How a sounding pixel compares with the threshold. It decides whether a flat map predicts nothing or everything.
    success_threshold : float
        Default cIoU from which a clip counts as a success.
    extras : tuple of {"iiou", "slavc", "nsa"}
        Additional metrics, see `pipeline.scoring.metrics` and `pipeline.scoring.score`.
    """

    name: str
    source: str
    size: int
    rounding: Rounding = "one-based-floor"
    consensus: Consensus = "annotators"
    normalization: Normalization = "min-max"
    interpolation: Interpolation = "bilinear"
    align_corners: bool = False
    threshold_rule: ThresholdRule = "fixed"
    map_threshold: float = 0.5
    comparator: Comparator = ">"
    success_threshold: float = 0.5
    extras: tuple[Extra, ...] = ()


# Base protocols. `_ALL` below lists them together with the variants that `replace` derives from them.
_PAPER = ScoringProtocol(
    name="paper256",
    source="The paper: Eq. 1 and 2, bilinear upsampling; the 256 grid and the threshold 0.5 are from MSSL, whose "
    "evaluation the paper follows without giving values",
    size=256,
    rounding="nearest",
)
_MSSL = ScoringProtocol(
    name="mssl256",
    source="MSSL, main script: negative responses clipped, divided by the maximum, above 0.5",
    size=256,
    rounding="nearest",
    normalization="relu-max",
)
_LVS = ScoringProtocol(
    name="lvs224-median",
    source="LVS on SoundNet-Flickr: the upper half of the pixels, strictly above the median",
    size=224,
    threshold_rule="median",
)
_EZVSL = ScoringProtocol(
    name="ezvsl224-median",
    source="EZ-VSL, test script: corners aligned, the upper half of the pixels including the median",
    size=224,
    align_corners=True,
    threshold_rule="median",
    comparator=">=",
)
_SSLALIGNMENT = ScoringProtocol(
    name="sslalignment224-median",
    source="SSLalignment on sets other than VGG-SS: corners aligned, strictly above the median",
    size=224,
    align_corners=True,
    threshold_rule="median",
)
_SSLALIGNMENT_VGGSS = replace(
    _SSLALIGNMENT,
    name="sslalignment-vggss224-median",
    source="SSLalignment on VGG-SS: corners not aligned, strictly above the median, union of the boxes",
    rounding="floor",
    consensus="union",
    align_corners=False,
)
_IIOU = replace(
    _SSLALIGNMENT,
    name="iiou224",
    source="SSLalignment on IS3: its median rule, plus IIoU: all clips of a frame must succeed",
    rounding="nearest",
    consensus="union",
    extras=("iiou",),
)
_SLAVC = ScoringProtocol(
    name="slavc224",
    source="SLAVC, relative prediction, on SoundNet-Flickr: bicubic, the upper half of the pixels; average precision "
    "and max-F1 over sounding and silent clips",
    size=224,
    interpolation="bicubic",
    align_corners=True,
    threshold_rule="median",
    comparator=">=",
    extras=("slavc",),
)
_MUSIC_A = ScoringProtocol(
    name="music-synthetic-a",
    source="DSOL on MUSIC-Synthetic, reading A: one map against the box of each sounding instrument, mean over them; "
    "above half the maximum. Maps are normalized by Eq. 1 first, because the minimum of DSOL's own softmax maps is "
    "near 0",
    size=224,
    rounding="xywh-floor",
    consensus="per-source",
    threshold_rule="relative-to-max",
    success_threshold=0.3,
    extras=("nsa",),
)

_ALL = (
    _PAPER,
    replace(
        _PAPER,
        name="paper256-median",
        source="Ground truth and upsampling of the paper with the median rule of later work",
        threshold_rule="median",
    ),
    _MSSL,
    replace(
        _MSSL,
        name="mssl256-calmetric",
        source="MSSL, the script that prints its table: above 0.001 of the maximum, that is, nearly every pixel",
        map_threshold=0.001,
    ),
    _LVS,
    _EZVSL,
    replace(
        _EZVSL,
        name="ezvsl224-validate",
        source="EZ-VSL, training script: bicubic, corners not aligned; it selects the EZ-VSL checkpoint",
        interpolation="bicubic",
        align_corners=False,
    ),
    ScoringProtocol(
        name="sspl224",
        source="SSPL: bilinear upsampling, then min-max, at least 0.5",
        size=224,
        normalization="min-max-enlarged",
        comparator=">=",
    ),
    _SSLALIGNMENT,
    replace(
        _SSLALIGNMENT,
        name="sslalignment224-adaptive",
        source="SSLalignment, adaptive: as many pixels as the ground truth has. It uses the ground truth: an upper bound",
        threshold_rule="oracle-area",
    ),
    _IIOU,
    replace(
        _IIOU,
        name="iiou224-adaptive",
        source="SSLalignment on IS3, adaptive: iiou224 with the area of the ground truth",
        threshold_rule="oracle-area",
    ),
    _SLAVC,
    replace(
        _LVS,
        name="vggss224",
        source="VGG-SS as scored by its authors (LVS): union of the boxes, strictly above the median",
        rounding="floor",
        consensus="union",
    ),
    replace(
        _SLAVC,
        name="slavc-vggss224",
        source="SLAVC, relative prediction, on VGG-SS: union of the boxes",
        rounding="floor",
        consensus="union",
    ),
    replace(
        _EZVSL,
        name="ezvsl-vggss224",
        source="EZ-VSL on VGG-SS, test script: its median rule, union of the boxes",
        rounding="floor",
        consensus="union",
    ),
    _SSLALIGNMENT_VGGSS,
    replace(
        _SSLALIGNMENT_VGGSS,
        name="sslalignment-vggss224-adaptive",
        source="SSLalignment on VGG-SS, adaptive: as many pixels as the ground truth has. It uses the ground truth: an upper bound",
        threshold_rule="oracle-area",
    ),
    _MUSIC_A,
    replace(
        _MUSIC_A,
        name="music-synthetic-b",
        source="MUSIC-Synthetic, reading B: one map against the union of the sounding instruments' boxes",
        consensus="union",
    ),
)

PROTOCOLS: dict[str, ScoringProtocol] = {protocol.name: protocol for protocol in _ALL}


def get_protocol(name: str) -> ScoringProtocol:
    """Return a protocol by name.

    Raises
    ------
    EvaluationError
        No protocol has this name.
    """
    if name not in PROTOCOLS:
        raise EvaluationError(f"unknown protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
