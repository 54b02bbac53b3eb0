"""A clip's frame, log-mel and sound, small enough to stand inside a page.

Pictures are JPEG and sound is MP3, which every browser plays, free builds of Chromium among them. Nothing carries a clock or
a program's version, so the same clip gives the same bytes.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pipeline.common.errors import ManifestError, MediaError
from pipeline.figures.heatmap import heat_colors
from pipeline.manifests.clips import Clip, media_path
from pipeline.media.clip import read_audio

FRAME_SIDE = 256  # pixels
FRAME_QUALITY, MEL_QUALITY = 84, 86
MEL_COLUMNS, MEL_ROWS = 400, 128  # a longer spectrogram is averaged down: no more than this can be told apart on a page
# What MPEG audio can be: sample rates in Hz, bit rates in bit/s.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MP3_BIT_RATES = (16_000, 24_000, 32_000, 40_000, 48_000, 64_000)
SOUND_BITS = 480_000  # of one clip: 72 of them take 5.8 MB in a page
HEADROOM = 0.9  # of full scale, since a lossy codec overshoots


def data_uri(kind: str, content: bytes) -> str:
    """Return the content as ``data:KIND;base64,…``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def frame_picture(frame: np.ndarray) -> str:
    """Return a frame, uint8 (row, col, 3), as a data URI, scaled down to `FRAME_SIDE` if it is larger."""
    picture = Image.fromarray(frame)
    if max(picture.size) > FRAME_SIDE:
        picture = picture.resize((FRAME_SIDE, FRAME_SIDE), Image.Resampling.LANCZOS)
    return data_uri("image/jpeg", _jpeg(picture, FRAME_QUALITY))


def log_mel_picture(log_mel: np.ndarray) -> str:
    """Return a spectrogram, float32 (mel, time), as a data URI: low bands at the bottom, its own range as the colors'."""
    low, high = np.quantile(log_mel, 0.02), log_mel.max()
    gray = np.clip((log_mel - low) / (high - low if high > low else 1), 0, 1)
    picture = Image.fromarray(np.rint(255 * gray[::-1]).astype(np.uint8))
    size = (min(picture.width, MEL_COLUMNS), min(picture.height, MEL_ROWS))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BOX)
    return data_uri("image/jpeg", _jpeg(Image.fromarray(heat_colors()[np.asarray(picture)]), MEL_QUALITY))


def clip_sound(clip: Clip | None, media_root: Path, *, clip_seconds: float, sample_rate: int) -> tuple[str, str]:
    """Return the window of sound that the clip's spectrogram was made from.

    Parameters
    ----------
    clip : Clip or None
        None if the clip list does not have it any more.
    media_root : Path
    clip_seconds : float > 0
    sample_rate : int > 0
        Hz, of the spectrogram; the sound has the next rate that MP3 knows.

    Returns
    -------
    sound : str
        A data URI, or "" where there is none.
    note : str
        Why there is none, or "".
    """
    if clip is None:
        return "", "No sound: the clip list does not have this clip any more."
    medium = clip.video or clip.audio
    rate = next((each for each in MP3_RATES if each >= sample_rate), MP3_RATES[-1])
    try:
        path = media_path(media_root, medium)
        if not path.is_file():
            return "", f"No sound: the media file {medium} was not there when this page was made."
        wave = read_audio(path, centre_s=clip.centre_s, clip_seconds=clip_seconds, sample_rate=rate)
        return data_uri("audio/mpeg", encode_sound(wave, sample_rate=rate)), ""
    except (MediaError, ManifestError):
        return "", f"No sound: that of the media file {medium} could not be decoded when this page was made."
    except av.codec.codec.UnknownCodecError:
        return "", "No sound: this build of PyAV has no MP3 encoder."


def encode_sound(wave: np.ndarray, *, sample_rate: int) -> bytes:
    """Encode a waveform as MP3.

    Parameters
    ----------
    wave : np.ndarray [shape=(sample,)]
        float32 in [-1, 1].
    sample_rate : int
        Hz, one of `MP3_RATES`.
    """
    bit_rate = max(each for each in MP3_BIT_RATES if each * len(wave) <= SOUND_BITS * sample_rate or each == 16_000)
    buffer = io.BytesIO()
    # Without "bitexact" the file names the versions that wrote it.
    options = {"fflags": "+bitexact", "id3v2_version": "0"}
    with av.open(buffer, "w", format="mp3", options=options) as container:
        stream = container.add_stream("libmp3lame", rate=sample_rate, layout="mono")
        stream.bit_rate = bit_rate
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        sound = av.AudioFrame.from_ndarray(np.float32(HEADROOM) * wave[None], format="fltp", layout="mono")
        sound.sample_rate = sample_rate
        sound.pts = 0
        for block in (sound, None):
            container.mux(stream.encode(block))
    return buffer.getvalue()


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0)
    return buffer.getvalue()
