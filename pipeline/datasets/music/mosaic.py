"""Composes one clip from four solos: a 2×2 mosaic of the frames, a mix of two of the four sounds, and the boxes.

Conventions: quadrants are numbered 0 top left, 1 top right, 2 bottom left, 3 bottom right; item k of a mosaic is in
quadrant k. Boxes are corners in fractions of the frame. Files are ``frames/ID.jpg`` and ``audio/ID.wav`` below the media
root: JPEG with quality 95 and no chroma subsampling, so that no 8×8 block straddles two quadrants of 112 pixels, and
16-bit mono WAV.
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
from pipeline.datasets.music.segments import load_audio, load_frame
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
_SMALLEST_RMS = 1.0e-8  # avoids division by zero for a second that a shift has made silent


def compose_mosaics(
    mosaics: Sequence[Mosaic], cuts: Path, media_root: Path, sample_rate: int
) -> list[tuple[float, ...]]:
    """Write the frame and the audio of each mosaic; one task of a build.

    Parameters
    ----------
    mosaics : sequence of Mosaic
    cuts : Path
        Folder of the cut videos.
    media_root : Path
        Parent folder of ``frames/`` and ``audio/``.
    sample_rate : int
        Hz, of the cut videos and of the output.

    Returns
    -------
    list of tuple of float
        For each mosaic, the factor of each item's recording in the mix, in the order of quadrants; 0 for a silent item.
        The audio is Σ scaleᵢ·xᵢ(t − shiftᵢ), rounded to 16 bits.
    """
    return [_compose(mosaic, cuts, media_root, sample_rate) for mosaic in mosaics]


def _compose(mosaic: Mosaic, cuts: Path, media_root: Path, sample_rate: int) -> tuple[float, ...]:
    frames = [load_frame(cuts, item.segment.video, item.segment.row) for item in mosaic.items]
    write_bytes(media_root / "frames" / f"{mosaic.clip_id}.jpg", _jpeg(arrange(np.stack(frames))))
    sounding = [item for item in mosaic.items if item.sounding]
    recordings = [
        load_audio(cuts, item.segment.video, item.segment.second, shift=item.shift, sample_rate=sample_rate)
        for item in sounding
    ]
    mixture, scales = mix(np.stack(recordings), np.array([item.gain for item in sounding]))
    write_bytes(media_root / "audio" / f"{mosaic.clip_id}.wav", wav_bytes(mixture, sample_rate))
    scale_of = dict(zip(map(id, sounding), scales.tolist(), strict=True))
    return tuple(scale_of.get(id(item), 0.0) for item in mosaic.items)


def arrange(frames: np.ndarray) -> np.ndarray:
    """Arrange four frames, uint8 (4, h, w, 3), as a 2×2 mosaic (2h, 2w, 3)."""
    _, height, width, channels = frames.shape
    rows = frames.reshape(2, 2, height, width, channels).transpose(0, 2, 1, 3, 4)  # (row, h, column, w, channel)
    return rows.reshape(2 * height, 2 * width, channels)


def mix(recordings: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalize recordings to equal loudness, mix them with their gains, and normalize the peak.

    Parameters
    ----------
    recordings : np.ndarray [shape=(item, sample)]
        Each is scaled to the same RMS before the gain, because otherwise a loud recording could mask a soft one (ours).
    gains : np.ndarray [shape=(item,)]
        Positive.

    Returns
    -------
    mixture : np.ndarray [shape=(sample,), dtype=float64]
        Peak 1.
    scales : np.ndarray [shape=(item,), dtype=float64]
        ``mixture == scales @ recordings``.
    """
    loudness = np.sqrt(np.square(recordings, dtype=np.float64).mean(axis=1))
    factors = gains / np.maximum(loudness, _SMALLEST_RMS)
    peak = np.abs(factors @ recordings).max()
    scales = factors / (peak or 1.0)  # a silent mixture stays silent
    return scales @ recordings, scales


def box_in_mosaic(box: Corners, quadrant: int) -> Corners:
    """Map a box of a solo frame (corners in fractions) to its quadrant of the mosaic; each side is halved."""
    left, top = 0.5 * (quadrant % 2), 0.5 * (quadrant // 2)
    x0, y0, x1, y1 = box
    return left + x0 / 2, top + y0 / 2, left + x1 / 2, top + y1 / 2


def mosaic_clip(mosaic: Mosaic) -> Clip:
    """Return the mosaic's entry in the clip list."""
    name = mosaic.clip_id
    return Clip(name, frame=f"frames/{name}.jpg", audio=f"audio/{name}.wav", label=mosaic.label)


def mosaic_boxes(mosaic: Mosaic, *, whole_quadrants: bool) -> list[Box]:
    """Return the boxes of all items; those of silent items are marked as not sounding.

    With `whole_quadrants`, the box of every item is its whole quadrant.
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
    """Return the provenance of a mosaic: one row with the columns `MOSAIC_COLUMNS` for each quadrant."""
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


def wav_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Encode a waveform, (sample,) in [-1, 1], as a 16-bit mono WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.rint(waveform * _INT16_MAX).astype("<i2").tobytes())
    return buffer.getvalue()
