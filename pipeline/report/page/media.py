"""A clip's frame, log-mel and audio, small enough to embed in a page.

Images are JPEG and audio is MP3, which every browser plays, including free builds of Chromium. Neither contains a date or a
program version, so the same clip gives the same bytes.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pipeline.common.errors import AccessError, ManifestError, MediaError
from pipeline.figures.heatmap import heatmap_colors
from pipeline.manifests.clips import Clip, media_path
from pipeline.media.clip import read_audio

FRAME_SIDE = 256  # pixels
FRAME_QUALITY, MEL_QUALITY = 84, 86
MEL_COLUMNS, MEL_ROWS = 400, 128  # longer spectrograms are averaged down; a page cannot show more detail
# What MPEG audio allows: sample rates in Hz, bit rates in bit/s.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MP3_BIT_RATES = (16_000, 24_000, 32_000, 40_000, 48_000, 64_000)
AUDIO_BITS = 480_000  # per clip: 72 clips take 5.8 MB in a page
HEADROOM = 0.9  # of full scale, because a lossy codec overshoots


def data_uri(kind: str, content: bytes) -> str:
    """Return the content as ``data:KIND;base64,…``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def frame_image(frame: np.ndarray) -> str:
    """Return a frame, uint8 (row, col, 3), as a data URI, scaled down to `FRAME_SIDE` if it is larger."""
    image = Image.fromarray(frame)
    if max(image.size) > FRAME_SIDE:
        image = image.resize((FRAME_SIDE, FRAME_SIDE), Image.Resampling.LANCZOS)
    return data_uri("image/jpeg", _jpeg(image, FRAME_QUALITY))


def log_mel_image(log_mel: np.ndarray) -> str:
    """Return a spectrogram, float32 (mel, time), as a data URI: low bands at the bottom, colors scaled to its own range."""
    # A quantile as the lower end, so that a few nearly silent bins do not use up the color range.
    low, high = np.quantile(log_mel, 0.02), log_mel.max()
    gray = np.clip((log_mel - low) / (high - low if high > low else 1), 0, 1)
    image = Image.fromarray(np.rint(255 * gray[::-1]).astype(np.uint8))
    size = (min(image.width, MEL_COLUMNS), min(image.height, MEL_ROWS))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BOX)
    return data_uri("image/jpeg", _jpeg(Image.fromarray(heatmap_colors()[np.asarray(image)]), MEL_QUALITY))


def clip_audio(clip: Clip | None, media_root: Path, *, clip_seconds: float, sample_rate: int) -> tuple[str, str]:
    """Return the audio window that the clip's spectrogram was computed from.

    Parameters
    ----------
    clip : Clip or None
        None if the clip is no longer in the clip list.
    media_root : Path
    clip_seconds : float > 0
    sample_rate : int > 0
        Of the spectrogram, Hz; the audio gets the next sample rate that MP3 allows.

    Returns
    -------
    audio : str
        A data URI, or "" if there is none.
    note : str
        Why there is none, or "".
    """
    if clip is None:
        return "", "No audio: the clip is no longer in the clip list."
    medium = clip.video or clip.audio
    rate = next((each for each in MP3_RATES if each >= sample_rate), MP3_RATES[-1])
    # A page without some audio is better than no page, so every failure becomes a note.
    try:
        path = media_path(media_root, medium)
        if not path.is_file():
            return "", f"No audio: the media file {medium} was missing when this page was built."
        wave = read_audio(path, centre_s=clip.centre_s, clip_seconds=clip_seconds, sample_rate=rate)
        return data_uri("audio/mpeg", encode_mp3(wave, sample_rate=rate)), ""
    except (MediaError, ManifestError):
        return "", f"No audio: the media file {medium} could not be decoded when this page was built."
    except AccessError:
        return "", f"No audio: the media file {medium} could not be read when this page was built."
    except av.codec.codec.UnknownCodecError:
        return "", "No audio: this build of PyAV has no MP3 encoder."


def encode_mp3(wave: np.ndarray, *, sample_rate: int) -> bytes:
    """Encode a waveform as MP3.

    Parameters
    ----------
    wave : np.ndarray [shape=(sample,)]
        float32 in [-1, 1].
    sample_rate : int
        Hz, one of `MP3_RATES`.
    """
    bit_rate = max(each for each in MP3_BIT_RATES if each * len(wave) <= AUDIO_BITS * sample_rate or each == 16_000)
    buffer = io.BytesIO()
    # Without "bitexact" the file names the versions of the libraries that wrote it.
    options = {"fflags": "+bitexact", "id3v2_version": "0"}
    with av.open(buffer, "w", format="mp3", options=options) as container:
        stream = container.add_stream("libmp3lame", rate=sample_rate, layout="mono")
        stream.bit_rate = bit_rate
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        block = av.AudioFrame.from_ndarray(np.float32(HEADROOM) * wave[None], format="fltp", layout="mono")
        block.sample_rate = sample_rate
        block.pts = 0
        for each in (block, None):  # None flushes the encoder
            container.mux(stream.encode(each))
    return buffer.getvalue()


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0)
    return buffer.getvalue()
