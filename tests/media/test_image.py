"""Still images: the whole image, upright, in the right colors, or one line that says why not."""

from __future__ import annotations

import io
import struct

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from pipeline.common.errors import MediaError
from pipeline.media.clip import read_frame
from pipeline.media.image import is_still, read_still
from tests.support.heif_files import write_grid
from tests.support.media_files import steady, write_media

KINDS = {"HEIF": "heic", "AVIF": "avif"}


def ramp(height=150, width=200):
    """Red grows to the right, green downward: every pixel tells its place."""
    pixels = np.full((height, width, 3), 64, dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return pixels


def quadrants(height=64, width=96):
    """Four gray levels, so that every turn and mirror image differs."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, width // 2 :], pixels[height // 2 :, : width // 2] = 80, 160
    pixels[height // 2 :, width // 2 :] = 240
    return pixels


def turned(pixels, orientation):
    """Return what a viewer shows for an EXIF orientation, by its definition: where row 0 and column 0 are displayed."""
    shown = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    from_bottom, from_right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return shown[:: -1 if from_bottom else 1, :: -1 if from_right else 1]


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def close(found, expected, within=6):
    return found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= within


def whole_or_none(path):
    try:
        return read_still(path)
    except MediaError:
        return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("turns", "mirror"), [(0, None), (1, None), (2, None), (3, None), (0, 0), (0, 1), (1, 1)])
def test_a_tiled_image_is_read_whole_and_turned_once(tmp_path, kind, turns, mirror):
    """12 tiles of 64×64; those of the last row and column extend beyond the image. The name claims a JPEG file."""
    path = write_grid(tmp_path / "photo.jpg", ramp(), kind=kind, turns=turns, mirror=mirror)
    expected = np.rot90(ramp(), turns)
    if mirror is not None:
        expected = expected[:, ::-1] if mirror else expected[::-1]
    found = read_still(path)
    assert found.dtype == np.uint8
    assert close(found, expected)
    assert is_still(path)
    small = np.asarray(Image.fromarray(np.ascontiguousarray(expected)).resize((8, 8), Image.Resampling.BILINEAR))
    assert close(read_frame(path, image_size=8), small)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiled_image_of_the_generic_brand(tmp_path, kind):
    path = write_grid(tmp_path / "photo.heif", ramp(), kind=kind, brand=b"mif1")
    assert close(read_still(path), ramp())


@pytest.mark.parametrize("kind", KINDS)
def test_a_tile_is_never_taken_for_the_image(tmp_path, kind):
    """Every damaged byte of the header leaves the whole image or one line, whatever the libraries make of it."""
    path = write_grid(tmp_path / "photo.heic", ramp(), kind=kind)
    content = path.read_bytes()
    primary = content.index(b"pitm") + 9  # an intact file may name a tile as its image
    for position in range(8, content.index(b"iprp"), 5):
        damaged = bytearray(content)
        damaged[position] ^= 0x41
        path.write_bytes(damaged)
        assert is_still(path)
        if (found := whole_or_none(path)) is not None:
            assert position == primary or found.shape == ramp().shape, position
    for name in (b"grid", b"dimg", b"iloc", b"iref"):
        path.write_bytes(content.replace(name, b"xxxx"))
        with pytest.raises(MediaError, match=r"photo.heic: .*image"):
            read_frame(path, image_size=8)


def test_an_unknown_brand_and_a_sequence_without_an_image(tmp_path):
    unknown = write_grid(tmp_path / "photo.heic", ramp(), brand=b"abcd")
    sequence = write_media(
        tmp_path / "burst.heic", times=steady(0.2, 10), container_format="mp4", container_options={"brand": "msf1"}
    )
    for path in (unknown, sequence):
        with pytest.raises(MediaError, match=rf"{path.name}: an image .*JPEG or PNG"):
            read_frame(path, image_size=8)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.heic", "a.avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_exactly_once(tmp_path, name, orientation):
    options = {} if name.endswith("tif") else {"quality": 95}
    Image.fromarray(quadrants()).save(tmp_path / name, exif=exif(orientation), **options)
    found = read_still(tmp_path / name)
    expected = turned(quadrants(), orientation)
    assert found.shape == expected.shape
    assert np.median(np.abs(found.astype(int) - expected)) <= 2
    assert np.mean(np.abs(found.astype(int) - expected)) <= 4


@pytest.mark.parametrize("name", ["a.heic", "a.avif"])
@pytest.mark.parametrize("metadata", ["exif", "xmp"])
def test_orientation_in_metadata_alone_does_not_turn_heif(tmp_path, name, metadata):
    """In HEIF and AVIF, EXIF and XMP only describe; what turns the image is the stored transformation."""
    tags = Image.Exif()
    tags[0x0128] = 6  # becomes the orientation below: the encoders would apply it
    before, after = {
        "exif": (b"\x01\x28\x00\x03", b"\x01\x12\x00\x03"),
        "xmp": (b"<tiff:Orientatiox>6<", b"<tiff:Orientation>6<"),
    }[metadata]
    content = {"exif": tags.tobytes(), "xmp": b"<a>" + before + b"/tiff:Orientation></a>"}[metadata]
    Image.fromarray(quadrants()).save(tmp_path / name, quality=95, **{metadata: content})
    stored = (tmp_path / name).read_bytes()
    assert stored.count(before) == 1
    (tmp_path / name).write_bytes(stored.replace(before, after))
    assert np.mean(np.abs(read_still(tmp_path / name).astype(int) - quadrants())) <= 4


def transparent():
    """Opaque dark above, half transparent dark in the middle, transparent red below."""
    pixels = np.zeros((96, 64, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[32:64, :, 3] = 128
    pixels[64:] = (255, 0, 0, 0)
    return pixels


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.heic", "a.avif"])
def test_transparent_pixels_show_white(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {} if name == "a.tif" else {"quality": 95}
    Image.fromarray(transparent()).save(tmp_path / name, **options)
    found = read_still(tmp_path / name).astype(int)
    for row, level in ((16, 0), (48, 127), (80, 255)):
        assert np.abs(found[row, 32] - level).max() <= 3


def test_transparency_of_palettes_gray_and_key_colors(tmp_path):
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "gray.png")
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.save(tmp_path / "palette.png", transparency=0)
    palette.save(tmp_path / "palette.gif", transparency=0)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "key.png", transparency=(1, 2, 3))
    for name in ("gray.png", "palette.png", "palette.gif", "key.png"):
        assert (read_still(tmp_path / name) == 255).all(), name
    palette.save(tmp_path / "opaque.png")
    assert (read_still(tmp_path / "opaque.png") == (10, 20, 30)).all()


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.avif", "a.tif", "a.heic"])
def test_the_first_of_several_images_is_read(tmp_path, name):
    first, second = (Image.new("RGB", (64, 64), color) for color in ((200, 0, 0), (0, 0, 200)))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    assert np.abs(read_still(tmp_path / name)[32, 32].astype(int) - (200, 0, 0)).max() <= 4


def test_the_primary_image_of_a_heic_file_is_read_not_its_thumbnail(tmp_path):
    first, second = (Image.new("RGB", (128, 96), color) for color in ((200, 0, 0), (0, 0, 200)))
    first.save(tmp_path / "a.heic", save_all=True, append_images=[second], primary_index=1, thumbnails=[64])
    found = read_still(tmp_path / "a.heic")
    assert found.shape == (96, 128, 3)
    assert np.abs(found[48, 64].astype(int) - (0, 0, 200)).max() <= 4


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_heic(tmp_path, bits):
    deep = (ramp(64, 96).astype(np.uint16) * 257).tobytes()
    image = pillow_heif.from_bytes("RGB;16", (96, 64), deep)
    before = pillow_heif.options.SAVE_HDR_TO_12_BIT
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    try:
        image.save(tmp_path / "a.heic", quality=95)
    finally:
        pillow_heif.options.SAVE_HDR_TO_12_BIT = before
    assert pillow_heif.open_heif(tmp_path / "a.heic").info["bit_depth"] == bits
    assert close(read_still(tmp_path / "a.heic"), ramp(64, 96))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path, name):
    Image.fromarray(np.full((8, 8), 0x4000, dtype=np.uint16)).save(tmp_path / name)
    assert (read_still(tmp_path / name) == 0x40).all()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_defined_white_are_rejected(tmp_path, kind):
    Image.fromarray(np.ones((8, 8), dtype=kind)).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match=r"a.tif: 32-bit pixels"):
        read_still(tmp_path / "a.tif")


def test_cmyk(tmp_path):
    Image.new("CMYK", (32, 32), (255, 0, 0, 0)).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_still(tmp_path / "a.jpg")[16, 16].astype(int) - (0, 255, 255)).max() <= 3


def swapped_profile():
    """Return an sRGB profile whose red and green primaries are exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {}
    for i in range(struct.unpack_from(">I", profile, 128)[0]):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        tags[name] = slice(offset, offset + size)
    profile[tags[b"rXYZ"]], profile[tags[b"gXYZ"]] = profile[tags[b"gXYZ"]], profile[tags[b"rXYZ"]]
    return (
        bytes(profile)
        .replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
        .replace(b"sRGB built", b"swap built")
    )


def test_an_icc_profile_is_converted_and_a_damaged_one_ignored(tmp_path):
    image = Image.new("RGB", (32, 32), (200, 30, 80))
    image.save(tmp_path / "swapped.png", icc_profile=swapped_profile())
    assert np.abs(read_still(tmp_path / "swapped.png")[0, 0].astype(int) - (30, 200, 80)).max() <= 2
    for name, profile in (("none", None), ("srgb", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
                          ("damaged", swapped_profile()[:200]), ("junk", b"junk")):  # fmt: skip
        image.save(tmp_path / f"{name}.png", icc_profile=profile)
        assert (read_still(tmp_path / f"{name}.png") == (200, 30, 80)).all(), name


def test_damaged_metadata_of_an_intact_image_is_ignored(tmp_path):
    Image.fromarray(quadrants()).save(
        tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff" + bytes(4), quality=95
    )
    assert read_still(tmp_path / "a.jpg").shape == (64, 96, 3)
    Image.fromarray(quadrants()).save(tmp_path / "b.jpg", exif=b"Exif\x00\x00no TIFF header", quality=95)
    assert read_still(tmp_path / "b.jpg").shape == (64, 96, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.7, 0.99])
def test_a_truncated_image_is_one_line(tmp_path, kind, kept):
    path = write_grid(tmp_path / f"a.{KINDS[kind]}", ramp(), kind=kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(MediaError, match=rf"{path.name}: .*(damaged|truncated)") as caught:
        read_frame(path, image_size=8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_very_small_images(tmp_path, size):
    buffer = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(buffer, format="PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    assert (read_frame(tmp_path / "a.png", image_size=4) == (9, 99, 199)).all()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_an_image_with_a_damaged_header_is_not_decoded_as_a_video(tmp_path, name):
    """FFmpeg would ignore the checksum of a PNG file, and show damaged pixels."""
    Image.fromarray(ramp()).save(tmp_path / name)
    content = bytearray((tmp_path / name).read_bytes())
    content[8:40] = bytes(32)
    if name == "a.webp":
        content[8:12] = b"WEBP"
    (tmp_path / name).write_bytes(content)
    assert is_still(tmp_path / name)
    with pytest.raises(MediaError, match=rf"{name}: .*damaged"):
        read_frame(tmp_path / name, image_size=8)


def test_a_png_with_a_wrong_checksum_is_damaged(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(MediaError, match=r"a.png: .*damaged"):
        read_frame(tmp_path / "a.png", image_size=8)


@pytest.mark.parametrize(("kind", "readable"), [(0, True), (1, False), (2, True)])
def test_a_tiff_that_begins_with_a_thumbnail(tmp_path, kind, readable):
    Image.fromarray(quadrants()).save(tmp_path / "a.tiff", tiffinfo={254: kind})
    if readable:
        np.testing.assert_array_equal(read_still(tmp_path / "a.tiff"), quadrants())
    else:
        with pytest.raises(MediaError, match=r"a\.tiff.*thumbnail"):
            read_still(tmp_path / "a.tiff")
