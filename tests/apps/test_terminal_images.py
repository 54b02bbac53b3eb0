"""Images in a terminal: only if it announces support, and the bytes sent hold the image."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from pipeline.apps.inspection.terminal_images import encode, image_protocol


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
        ({"TERM": "foot-extra", "KITTY_WINDOW_ID": ""}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({}, None),
    ],
)
def test_the_protocol_is_read_from_the_environment(environment, protocol):
    assert image_protocol(environment, is_terminal=True) == protocol
    assert image_protocol(environment, is_terminal=False) is None


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
