"""Read still images at their original size.

Conventions
-----------
- Pixels are uint8 RGB (row, col, channel) in sRGB, upright: EXIF orientation, or the rotation that a HEIF or AVIF file stores,
  is applied exactly once.
- A tiled HEIC or AVIF file is read whole. Its thumbnails, depth maps and gain maps are ignored.
- Of several images in one file (animation, burst, pages), the first or the one marked as primary is read.
- Transparent pixels become white, as in a browser. This is our choice.
- 16-bit channels keep their upper 8 bits. 32-bit and floating-point pixels have no defined white level and are rejected.
- An embedded ICC profile is converted to sRGB. HDR transfer curves without a profile are not tone-mapped.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pipeline.common.errors import MediaError
from pipeline.media.pyav import MAX_PIXELS
from pipeline.media.readable import Source, from_start, opened, raise_if_unreadable, require_file

# One thread, because other workers use the remaining cores.
pillow_heif.register_heif_opener(decode_threads=1)

# Formats that are decoded in-process. Others are risky: Pillow's PostScript reader starts another program.
# AVIF comes before HEIF, because the HEIF reader also opens AVIF files that it cannot decode.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "HEIF")
# All of these are raised by Pillow's decoders on damaged files.
_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, RuntimeError, OverflowError,
    struct.error, zlib.error,
)  # fmt: skip
# Major brands of images and image sequences. Files that contain an image also list mif1, which no video file does.
_HEIF_BRANDS = frozenset(b"mif1 mif2 msf1 heic heix heim heis hevc hevx hevm hevs avif avis avci avcs jpeg".split())
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")
_NEW_SUBFILE_TYPE = 254  # tag of TIFF; bit 0: a reduced version of another image in the file
_SRGB = ImageCms.createProfile("sRGB")


def read_still(path: Path) -> np.ndarray | None:
    """Read an image file at its original size; return None if the content is not an image.

    Returns
    -------
    np.ndarray [shape=(row, col, 3)] or None
        uint8 sRGB, upright.

    Raises
    ------
    MediaError
        The file is missing or empty, or the image is damaged, larger than 100 megapixels, or in a variant that cannot be
        read whole.
    """
    require_file(path)
    with opened(path) as source:
        return _read_opened(source)


def _read_opened(path: Source) -> np.ndarray | None:
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd metadata and large images; the size is checked here, before anything is decoded.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise MediaError(
                        f"{path}: {image.width}×{image.height} pixels exceed the limit of 100 megapixels; scale it down"
                    )
                # pillow-heif falls back to another image of the file, which can be a tile, and leaves missing tiles gray.
                if image.format == "HEIF" and (not image.info["primary"] or _is_truncated(path)):
                    raise _unreadable(path)
                if image.format == "TIFF" and image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 1:
                    raise MediaError(f"{path}: begins with a thumbnail, as raw photos do; convert it to JPEG or PNG")
                return np.asarray(_rgb(_upright(image), path, format=image.format))
    except UnidentifiedImageError:
        # FFmpeg would decode one tile of such a file, or ignore its checksums and its orientation.
        if _claims_to_be_image(path):
            raise _unreadable(path) from None
        return None
    except Image.DecompressionBombError:
        raise MediaError(f"{path}: exceeds the limit of 100 megapixels; scale it down") from None
    except _ERRORS as error:
        raise_if_unreadable(path, error)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(f"{path}: the image is damaged or truncated ({reason}); download it again") from None


def is_still(path: Path) -> bool:
    """Return whether a file is an image, judging by its first bytes; False if it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS):
                return True
    except Image.DecompressionBombError:
        return True  # an image, although too large to load
    except _ERRORS:
        return _claims_to_be_image(path)


def over_white(image: Image.Image) -> Image.Image:
    """Return an RGB image in which the transparent pixels of an image are white."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _unreadable(path: Source) -> MediaError:
    return MediaError(
        f"{path}: an image that is damaged or of an unsupported kind; download it again, or convert it to JPEG or PNG"
    )


def _claims_to_be_image(path: Source) -> bool:
    """Return whether the first bytes are those of an image format that `read_still` reads."""
    try:
        with from_start(path) as file:
            head = file.read(1024)
    except OSError:
        return False
    if head.startswith(_SIGNATURES) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP"):
        return True
    brands = head[8 : int.from_bytes(head[:4], "big")] if head[4:8] == b"ftyp" else b""
    return brands[:4] in _HEIF_BRANDS or b"mif1" in brands


def _is_truncated(path: Source) -> bool:
    """Return whether a box of a HEIF file ends after the end of the file."""
    with from_start(path) as file:
        length, start = file.seek(0, os.SEEK_END), 0
        while start + 16 <= length:
            file.seek(start)
            size, kind, long_size = struct.unpack(">I4sQ", file.read(16))
            size = long_size if size == 1 else size
            # A size of 0 means the rest of the file. Some cameras append data that is not a box.
            if size < 8 or not kind.isalnum():
                return False
            start += size
    return start > length


def _upright(image: Image.Image) -> Image.Image:
    if image.format == "AVIF":
        # Pillow reports the stored rotation as EXIF orientation. XMP, its fallback, does not count in AVIF.
        image.info.pop("xmp", None)
    image.load()
    try:
        return ImageOps.exif_transpose(image) or image
    except _ERRORS:
        return image  # damaged EXIF data of an intact image


def _rgb(image: Image.Image, path: Source, *, format: str | None) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and format == "TIFF"):
        raise MediaError(f"{path}: 32-bit pixels have no defined white level; convert the image to 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit gray to 8 bits instead of scaling it.
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return _in_srgb(over_white(image) if image.has_transparency_data else image, image.info.get("icc_profile"))


def _in_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Return an RGB image, its colors converted by an ICC profile that is intact and not sRGB."""
    if image.mode != "CMYK":
        image = image.convert("RGB")
    try:
        if icc and "sRGB" not in ImageCms.getProfileDescription(profile := ImageCms.getOpenProfile(io.BytesIO(icc))):
            return ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        pass  # such as a gray profile
    return image.convert("RGB")
