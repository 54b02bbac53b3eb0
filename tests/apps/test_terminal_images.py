"""Pictures in a terminal: only where it says that it can, and what is sent is the picture."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from pipeline.apps.inspection.terminal_images import encode, protocol_of


def make_png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "foot-extra", "KITTY_WINDOW_ID": ""}, "sixel"),
        ({"TERM": "xterm-sixel"}, "sixel"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({}, None),
    ],
)
def test_a_terminal_is_believed_by_what_it_says(environment, protocol):
    assert protocol_of(environment, is_terminal=True) == protocol
    assert protocol_of(environment, is_terminal=False) is None


def test_kitty_gets_the_png_in_chunks():
    png = make_png(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    sent = encode(png, "kitty")
    parts = re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sent)
    assert b"".join(b"\x1b_G" + control + b";" + data + b"\x1b\\" for control, data in parts) + b"\n" == sent
    assert base64.b64decode(b"".join(data for _, data in parts)) == png
    assert max(len(data) for _, data in parts) <= 4096
    assert all(len(data) % 4 == 0 for _, data in parts)
    assert [control.split(b"m=")[1] for control, _ in parts] == [b"1"] * (len(parts) - 1) + [b"0"]
    assert parts[0][0].startswith(b"a=T,f=100")


def test_iterm2_gets_the_png_and_its_size():
    png = make_png(np.zeros((4, 4, 3), dtype=np.uint8))
    head, data = encode(png, "iterm2").removesuffix(b"\x07\n").split(b":")
    assert head.startswith(b"\x1b]1337;File=inline=1;")
    assert f"size={len(png)};".encode() in head
    assert base64.b64decode(data) == png


def drawn(sixel):
    """Draw a sixel picture, one character after the other, as a terminal does."""
    text = sixel.decode("ascii")
    assert text.startswith("\x1bPq")
    assert text.endswith("\x1b\\\n")
    width, height = map(int, re.search(r'"1;1;(\d+);(\d+)', text).groups())
    palette = {int(n): [int(p) for p in rgb.split(";")] for n, rgb in re.findall(r"#(\d+);2;(\d+;\d+;\d+)", text)}
    body = re.sub(r"#\d+;2;\d+;\d+;\d+", "", text.split('"1;1;')[1].split(";", 1)[1].lstrip("0123456789"))
    picture = np.zeros((height, width, 3), dtype=int)
    x = top = color = 0
    for count, bits, new, move in re.findall(r"(?:!(\d+))?([?-~])|#(\d+)|([$-])", body.removesuffix("\x1b\\\n")):
        if new:
            color = int(new)
        elif move:
            x, top = 0, top + (6 if move == "-" else 0)
        else:
            n = int(count or 1)
            for row in range(6):
                if (ord(bits) - 63) >> row & 1:
                    picture[top + row, x : x + n] = palette[color]
            x += n
    return picture


@pytest.mark.parametrize("shape", [(1, 1), (6, 5), (13, 9), (12, 40)])
def test_sixel_draws_the_picture(shape):
    colors = np.array([[255, 0, 0], [0, 255, 0], [51, 102, 204], [255, 255, 255]], dtype=np.uint8)
    pixels = colors[np.random.default_rng(1).integers(0, 4, shape)]
    pixels[: shape[0] // 2] = colors[2]
    np.testing.assert_array_equal(drawn(encode(make_png(pixels), "sixel")), np.rint(pixels / 2.55).astype(int))


def test_sixel_of_many_colors_stays_near():
    y, x = np.mgrid[:30, :40]
    pixels = np.stack([6 * x, 8 * y, 255 - 6 * x], axis=2).astype(np.uint8)
    difference = np.abs(drawn(encode(make_png(pixels), "sixel")) - pixels / 2.55)
    assert difference.mean() < 3
