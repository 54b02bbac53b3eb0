"""The field's evaluation rules, each a named object.

Published numbers of different papers are not comparable: maps are normalized, enlarged and thresholded differently,
and the same predictor moves by tens of points. Here every rule is spelled out, so that one model can be scored under
all of them (`pipeline.scoring.score`).

Conventions
-----------
A response map is raw (row, col), any scale. A rule normalizes it, enlarges it to ``size`` × ``size``, and thresholds
it. "min-max" maps the raw map to [0, 1] (Eq. 1) before it is enlarged; "min-max-enlarged" does so afterwards, which
differs for a fixed threshold because interpolation can miss the peak; "relu-max" cuts negative responses off, enlarges,
and divides by the maximum. "bilinear" without aligned corners is what OpenCV's linear resize does (half-pixel centers).

Source names: MSSL, LVS, EZ-VSL, SLAVC, SSPL, SSLalignment and DSOL are the public repositories of those systems.
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
class Protocol:
    """How a response map becomes a score.

    Parameters
    ----------
    name : str
        Under which `get_protocol` finds it.
    source : str
        Whose rule it is, and what it is for.
    size : int
        Side of the grid on which map and boxes meet, pixels.
    rounding : str
        How box edges become pixels, see `pipeline.scoring.ground_truth.pixel_edges`.
    consensus : str
        How boxes become the consensus map, see `pipeline.scoring.ground_truth.ground_truth`. With "per-source" a clip's cIoU and
        IoU are the means over its sounding sources.
    normalization : {"min-max", "min-max-enlarged", "relu-max"}
        See the module's conventions.
    interpolation : {"bilinear", "bicubic"}
        How the map is enlarged.
    align_corners : bool
        Whether the outermost cells' centers land on the outermost pixels.
    threshold_rule : {"fixed", "relative-to-max", "median", "oracle-area"}
        "fixed": `map_threshold` on the normalized map. "relative-to-max": `map_threshold` times the enlarged map's
        maximum. "median": the value at index N // 2 of the N sorted pixels. "oracle-area": the value at index N - k,
        where k is the number of pixels with g > 0 (N // 2 if none); it knows the ground truth's area.
    map_threshold : float
        See `threshold_rule`; unused by the last two.
    comparator : {">", ">="}
        How a pixel must compare with the threshold. It decides what becomes of a flat map: nothing, or everything.
    success_threshold : float
        cIoU from which a clip counts as a success, unless the caller says otherwise.
    extras : tuple of {"iiou", "slavc", "nsa"}
        Further metric sets, see `pipeline.scoring.metrics` and `pipeline.scoring.score`.
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


_PAPER = Protocol(
    name="paper256",
    source="The paper's own: Eq. 1 and 2, bilinear enlargement; the 256 grid and the fixed 0.5 are those of MSSL, "
    "whose evaluation it follows (the paper gives no value)",
    size=256,
    rounding="nearest",
)
_MSSL = Protocol(
    name="mssl256",
    source="MSSL, main script: negative responses cut off, divided by the maximum, above 0.5",
    size=256,
    rounding="nearest",
    normalization="relu-max",
)
_LVS = Protocol(
    name="lvs224-median",
    source="LVS on SoundNet-Flickr: the upper half of the pixels, strictly above the median",
    size=224,
    threshold_rule="median",
)
_EZVSL = Protocol(
    name="ezvsl224-median",
    source="EZ-VSL, test script: corners aligned, the upper half of the pixels including the median",
    size=224,
    align_corners=True,
    threshold_rule="median",
    comparator=">=",
)
_SSLALIGNMENT = Protocol(
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
    source="SSLalignment on IS3: as its median rule, and IIoU: all clips of one frame must succeed together",
    rounding="nearest",
    consensus="union",
    extras=("iiou",),
)
_SLAVC = Protocol(
    name="slavc224",
    source="SLAVC with its relative prediction on SoundNet-Flickr: bicubic, the upper half of the pixels; average "
    "precision and max-F1 over sounding and silent clips",
    size=224,
    interpolation="bicubic",
    align_corners=True,
    threshold_rule="median",
    comparator=">=",
    extras=("slavc",),
)
_MUSIC_A = Protocol(
    name="music-synthetic-a",
    source="DSOL on MUSIC-Synthetic, reading A: one map against the box of each sounding instrument, mean over them; "
    "above half the maximum. Maps are normalized by Eq. 1 first, since DSOL's own are softmax values near 0 at "
    "their lowest",
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
        source="The paper's ground truth and enlargement with the median rule of later work",
        threshold_rule="median",
    ),
    _MSSL,
    replace(
        _MSSL,
        name="mssl256-calmetric",
        source="MSSL, the script that prints its table: above 0.001 of the maximum, which is nearly every pixel",
        map_threshold=0.001,
    ),
    _LVS,
    _EZVSL,
    replace(
        _EZVSL,
        name="ezvsl224-validate",
        source="EZ-VSL, training script: bicubic without aligned corners; this is what picks its checkpoint",
        interpolation="bicubic",
        align_corners=False,
    ),
    Protocol(
        name="sspl224",
        source="SSPL: linear enlargement, then min-max, 0.5 and above",
        size=224,
        normalization="min-max-enlarged",
        comparator=">=",
    ),
    _SSLALIGNMENT,
    replace(
        _SSLALIGNMENT,
        name="sslalignment224-adaptive",
        source="SSLalignment, adaptive: as many pixels as the ground truth has. It reads the answer; an upper bound",
        threshold_rule="oracle-area",
    ),
    _IIOU,
    replace(
        _IIOU,
        name="iiou224-adaptive",
        source="SSLalignment on IS3, adaptive: as iiou224 with the ground truth's area",
        threshold_rule="oracle-area",
    ),
    _SLAVC,
    replace(
        _LVS,
        name="vggss224",
        source="VGG-SS as its authors (LVS) score it: union of the boxes, strictly above the median",
        rounding="floor",
        consensus="union",
    ),
    replace(
        _SLAVC,
        name="slavc-vggss224",
        source="SLAVC with its relative prediction on VGG-SS: union of the boxes",
        rounding="floor",
        consensus="union",
    ),
    replace(
        _EZVSL,
        name="ezvsl-vggss224",
        source="EZ-VSL on VGG-SS, test script: as its median rule, union of the boxes",
        rounding="floor",
        consensus="union",
    ),
    _SSLALIGNMENT_VGGSS,
    replace(
        _SSLALIGNMENT_VGGSS,
        name="sslalignment-vggss224-adaptive",
        source="SSLalignment on VGG-SS, adaptive: as many pixels as the ground truth has. It reads the answer; an upper bound",
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

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def get_protocol(name: str) -> Protocol:
    """Return the protocol of that name.

    Raises
    ------
    EvaluationError
        There is none; the message lists those that there are.
    """
    if name not in PROTOCOLS:
        raise EvaluationError(f"unknown protocol {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
