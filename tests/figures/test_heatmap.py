"""Heat maps on images and video frames: their colors, their opacity, the color bar, and notices."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps

from pipeline.figures.heatmap import blend, heatmap_colors, heatmap_rgba, overlay, painted, rgb_layer, yuv420_layer
from pipeline.figures.labels import add_rgb_bar, add_yuv420_bar, color_bar, rgb_notice, yuv420_notice


def test_an_overlay_of_a_known_map():
    picture = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    before = picture.copy()
    for heat in (0.0, 0.5, 1.0):
        opacity = 0.65 * heat**1.5
        color = 255 * np.array(colormaps["inferno"](heat)[:3])
        expected = (1 - opacity) * picture + opacity * color
        # Half a unit for each of: the color, the opacity's 256 steps, the result.
        assert np.abs(overlay(picture, np.full((4, 4), heat)) - expected).max() <= 2
    assert (picture == before).all()


def test_one_table_of_colors_for_all():
    colors = heatmap_colors()
    expected = [[round(255 * part) for part in colormaps["inferno"](i / 255)[:3]] for i in range(256)]
    assert colors.dtype == np.uint8
    assert colors.tolist() == expected
    assert heatmap_colors() is colors
    with pytest.raises(ValueError, match="read-only"):
        colors[0] = 0


def test_heat_is_drawn_at_its_location():
    heat = np.zeros((4, 4))
    heat[0, 3] = 1
    drawn = overlay(np.zeros((40, 80, 3), dtype=np.uint8), heat).sum(axis=2)
    assert np.unravel_index(drawn.argmax(), drawn.shape)[0] < 10
    assert np.unravel_index(drawn.argmax(), drawn.shape)[1] >= 60
    assert drawn[:, :39].max() == drawn[20:].max() == drawn[39, 0]


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
def test_blending_in_yuv_equals_blending_in_rgb(matrix):
    height, width = 96, 128
    heat = np.random.default_rng(1).random((3, 4))
    gray = 120
    planes = np.full((height * 3 // 2, width), 128, dtype=np.uint8)
    planes[:height] = round(16 + gray * 219 / 255)
    blend(planes, yuv420_layer(heat, height=height, width=width, matrix=matrix))
    y = planes[:height].astype(float)
    u, v = planes[height:].reshape(2, height // 2, width // 2).repeat(2, axis=1).repeat(2, axis=2) - 128.0
    y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}[matrix]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    expected = overlay(np.full((height, width, 3), gray, dtype=np.uint8), heat).astype(float)
    # Chroma has half the resolution, and each plane is rounded.
    assert np.abs(np.stack([r, g, b], axis=2).clip(0, 255) - expected).mean() < 4


def test_a_notice_leaves_the_rest_unchanged():
    picture = np.random.default_rng(2).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    drawn = picture.copy()
    blend(drawn, rgb_notice("no sound", height=120, width=200))
    assert (drawn[60:] == picture[60:]).all()
    assert drawn[:30].max() == 255
    assert (drawn[:30] != picture[:30]).any()
    planes = np.random.default_rng(2).integers(16, 236, (180, 200), dtype=np.uint8)
    drawn = planes.copy()
    blend(drawn, yuv420_notice("no sound", height=120, width=200))
    assert (drawn[60:120] == planes[60:120]).all()
    assert drawn.max() == 235


def test_a_notice_fits_a_tiny_image():
    drawn = np.zeros((2, 2, 3), dtype=np.uint8)
    blend(drawn, rgb_notice("no sound", height=2, width=2))
    assert drawn.shape == (2, 2, 3)


def test_blending_is_exact_at_every_value():
    layer = rgb_layer(np.random.default_rng(3).random((16, 16)), height=64, width=64)
    picture = np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for value in (0, 255):
        picture[:8] = value
        expected = (layer.weight.astype(np.int64) * picture.ravel() + layer.paint) // 256
        drawn = picture.copy()
        blend(drawn, layer)
        assert expected.max() <= 255
        assert (drawn.ravel() == expected).all()
    with pytest.raises(ValueError, match=r"12288 bytes.*\(5, 64, 3\)"):
        blend(picture[:5], layer)


def test_opacity_grows_with_the_response_from_nothing():
    alpha = heatmap_rgba()[:, 3].astype(int)
    assert alpha[0] == 0
    assert (np.diff(alpha) >= 0).all()
    # Half the response has less than half of the opacity, and the strongest one hides less than two thirds of the object.
    assert alpha[128] < alpha[255] / 2
    assert alpha[255] / 255 < 2 / 3
    picture = np.full((8, 8, 3), 90, dtype=np.uint8)
    assert (overlay(picture, np.zeros((2, 2))) == picture).all()


def test_figures_and_images_have_the_same_colors():
    values = np.linspace(0, 1, 256)[None]
    rgba = painted(values)[0].astype(float)
    blended = overlay(np.full((1, 256, 3), 90, dtype=np.uint8), values)[0]
    share = rgba[:, 3:] / 255
    assert np.abs(share * rgba[:, :3] + (1 - share) * 90 - blended).max() <= 2
    assert (painted(np.array([[-0.2, 1.3]]))[0] == heatmap_rgba()[[0, 255]]).all()


def test_the_color_bar_shows_the_map_over_gray():
    expected = overlay(np.full((1, 64, 3), 128, dtype=np.uint8), np.linspace(0, 1, 64)[None])[0].astype(int)
    assert np.abs(color_bar(64).astype(int) - expected).max() <= 2


def test_the_color_bar_is_in_the_lower_right_corner_and_leaves_the_rest():
    height, width = 240, 320
    heat = np.random.default_rng(5).random((3, 4))
    plain, barred = (rgb_layer(heat, height=height, width=width) for _ in range(2))
    add_rgb_bar(barred, height=height, width=width)
    picture = np.random.default_rng(6).integers(0, 256, (height, width, 3), dtype=np.uint8)
    drawn, without = picture.copy(), picture.copy()
    blend(drawn, barred)
    blend(without, plain)
    rows, columns = np.nonzero((drawn != without).any(axis=2))
    assert rows.min() > height * 0.8
    assert columns.min() > width * 0.5
    assert rows.max() < height - 1
    assert columns.max() < width - 1
    bar = drawn[rows.min() + 8]
    assert (np.abs(bar[:, None].astype(int) - color_bar(32)[-1]).max(axis=2) <= 3).any()

    planes = np.full((height * 3 // 2, width), 128, dtype=np.uint8)
    layer = yuv420_layer(np.zeros((2, 2)), height=height, width=width, matrix="bt709")
    add_yuv420_bar(layer, height=height, width=width, matrix="bt709")
    blend(planes, layer)
    changed_rows, changed_columns = np.nonzero(planes[:height] != 128)
    assert (changed_rows.min(), changed_columns.min()) == (rows.min(), columns.min())
    u, v = planes[height:].reshape(2, height // 2, width // 2).astype(int)
    for plane in (u, v):
        assert {
            (row * 2 >= rows.min(), column * 2 >= columns.min())
            for row, column in zip(*np.nonzero(plane != 128), strict=True)
        } == {(True, True)}


def test_small_images_get_no_color_bar():
    layer, plain = (rgb_layer(np.eye(3), height=128, width=128) for _ in range(2))
    add_rgb_bar(layer, height=128, width=128)
    assert (layer.weight == plain.weight).all()
    assert (layer.paint == plain.paint).all()
