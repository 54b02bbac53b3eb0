"""One clip of four solos: the frames in a 2×2 mosaic, two of the four sounds mixed, the boxes moved along.

Conventions: quadrants are numbered 0 top left, 1 top right, 2 bottom left, 3 bottom right; a mosaic's item k stands in
quadrant k. Boxes are corners in fractions of the frame. Files are ``frames/ID.jpg`` and ``audio/ID.wav`` under the media
root: JPEG of quality 95 without chroma subsampling, whose 8×8 blocks do not straddle quadrants of 112 pixels, and mono
WAV of 16 bits.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.common.files import write_bytes
from pipeline.datasets.music.boxes import Corners
from pipeline.datasets.music.schedule import Item, Mosaic
from pipeline.datasets.music.segments import load_frame, load_sound
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import Clip

MOSAIC_COLUMNS = (
    "clip_id",
    "quadrant",
    "video",
    "instrument",
    "second",
    "frame_s",
    "sounding",
    "gain",
    "shift_samples",
    "scale",
)
QUADRANT: Corners = (0.0, 0.0, 1.0, 1.0)  # the box of an item that fills its quadrant
_INT16_MAX = 32767
_SMALLEST_RMS = 1.0e-8  # keeps a second whose sound a shift moved out of it from being divided by zero


def compose_mosaics(
    mosaics: Sequence[Mosaic], cuts: Path, media_root: Path, sample_rate: int
) -> list[tuple[float, ...]]:
    """Write the frame and the sound of each mosaic; one task of a build.

    Parameters
    ----------
    mosaics : sequence of Mosaic
    cuts : Path
        Folder of the cut videos.
    media_root : Path
        Where ``frames/`` and ``audio/`` go.
    sample_rate : int
        Hz, of the cut videos and of the sound written.

    Returns
    -------
    list of tuple of float
        For each mosaic the factor that each item's recording has in the mix, in the order of quadrants; 0 for a silent
        one. So the sound is Σ scaleᵢ·xᵢ(t − shiftᵢ), rounded to 16 bits.
    """
    return [_compose(mosaic, cuts, media_root, sample_rate) for mosaic in mosaics]


def _compose(mosaic: Mosaic, cuts: Path, media_root: Path, sample_rate: int) -> tuple[float, ...]:
    frames = [load_frame(cuts, item.segment.video, item.segment.row) for item in mosaic.items]
    write_bytes(media_root / "frames" / f"{mosaic.clip_id}.jpg", _jpeg(arrange(np.stack(frames))))
    sounding = [item for item in mosaic.items if item.sounding]
    sounds = [
        load_sound(cuts, item.segment.video, item.segment.second, shift=item.shift, sample_rate=sample_rate)
        for item in sounding
    ]
    mixture, scales = mix(np.stack(sounds), np.array([item.gain for item in sounding]))
    write_bytes(media_root / "audio" / f"{mosaic.clip_id}.wav", wav_bytes(mixture, sample_rate))
    of_item = dict(zip(map(id, sounding), scales.tolist(), strict=True))
    return tuple(of_item.get(id(item), 0.0) for item in mosaic.items)


def arrange(frames: np.ndarray) -> np.ndarray:
    """Put four frames, uint8 (4, h, w, 3), into their quadrants: (2h, 2w, 3)."""
    _, height, width, channels = frames.shape
    rows = frames.reshape(2, 2, height, width, channels).transpose(0, 2, 1, 3, 4)  # (row, h, column, w, channel)
    return rows.reshape(2 * height, 2 * width, channels)


def mix(sounds: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mix sounds of equal loudness by their gains, and divide by the largest magnitude.

    Parameters
    ----------
    sounds : np.ndarray [shape=(item, sample)]
        Recordings differ in loudness; each is first brought to the same RMS, for otherwise the softer of two sounding
        instruments could be drowned (ours).
    gains : np.ndarray [shape=(item,)]
        Positive.

    Returns
    -------
    mixture : np.ndarray [shape=(sample,), dtype=float64]
        Largest magnitude 1.
    scales : np.ndarray [shape=(item,), dtype=float64]
        ``mixture == scales @ sounds``.
    """
    loudness = np.sqrt(np.square(sounds, dtype=np.float64).mean(axis=1))
    factors = gains / np.maximum(loudness, _SMALLEST_RMS)
    peak = np.abs(factors @ sounds).max()
    scales = factors / (peak or 1.0)
    return scales @ sounds, scales


def box_in_mosaic(box: Corners, quadrant: int) -> Corners:
    """Carry a box of a solo frame, corners in fractions, into the mosaic: each side is halved."""
    left, top = 0.5 * (quadrant % 2), 0.5 * (quadrant // 2)
    x0, y0, x1, y1 = box
    return left + x0 / 2, top + y0 / 2, left + x1 / 2, top + y1 / 2


def mosaic_clip(mosaic: Mosaic) -> Clip:
    """Return the mosaic's row of the clip list."""
    name = mosaic.clip_id
    return Clip(name, frame=f"frames/{name}.jpg", audio=f"audio/{name}.wav", label=mosaic.label)


def mosaic_boxes(mosaic: Mosaic, *, whole_quadrants: bool) -> list[Box]:
    """Return the boxes of all its items that have any; those of a silent item are marked as not sounding.

    With `whole_quadrants` the box of every item is its quadrant, whatever it shows there.
    """
    return [
        Box(mosaic.clip_id, item.segment.instrument, annotator, item.sounding, *box_in_mosaic(box, quadrant))
        for quadrant, item in enumerate(mosaic.items)
        for annotator, box in _boxes_of(item, whole_quadrants)
    ]


def _boxes_of(item: Item, whole_quadrants: bool) -> list[tuple[str, Corners]]:
    if whole_quadrants:
        return [("quadrant", QUADRANT)]
    return [("published", box) for box in item.segment.boxes]


def mosaic_rows(mosaic: Mosaic, scales: Sequence[float]) -> list[tuple[str | int | float, ...]]:
    """Return the provenance of a mosaic: one row of `MOSAIC_COLUMNS` for each quadrant."""
    return [
        (
            mosaic.clip_id,
            quadrant,
            item.segment.video,
            item.segment.instrument,
            item.segment.second,
            round(item.segment.frame_s, 6),
            int(item.sounding),
            item.gain,
            item.shift,
            scale,
        )
        for quadrant, (item, scale) in enumerate(zip(mosaic.items, scales, strict=True))
    ]


def _jpeg(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def wav_bytes(sound: np.ndarray, sample_rate: int) -> bytes:
    """Return a mono WAV file of 16 bits; `sound` is (sample,) within ± 1."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.rint(sound * _INT16_MAX).astype("<i2").tobytes())
    return buffer.getvalue()
