"""Pictures inside a terminal, where the terminal says that it can show them.

Conventions
-----------
A picture is PNG bytes; what a terminal is sent is bytes. Three protocols: kitty's graphics, iTerm2's inline images, and
sixel. A terminal is only believed by what it puts into the environment: asking it would leave junk on those that do not
understand the question. Inside tmux and screen, which swallow pictures, there are none.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Literal

import numpy as np
from PIL import Image

Protocol = Literal["kitty", "iterm2", "sixel"]
_KITTY_CHUNK = 4096  # characters of base64 in one escape sequence, as its protocol demands
_SIXEL_COLORS = 255
_SIXEL_TERMS = ("foot", "mlterm", "contour", "yaft")


def protocol_of(environment: Mapping[str, str], *, is_terminal: bool) -> Protocol | None:
    """Return how the terminal takes pictures.

    Parameters
    ----------
    environment : mapping of str to str
        TERM, TERM_PROGRAM, KITTY_WINDOW_ID, TMUX and LC_TERMINAL are looked at.
    is_terminal : bool
        Whether the output goes to a terminal at all.

    Returns
    -------
    "kitty", "iterm2", "sixel", or None if it does not say that it can.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if not is_terminal or term == "dumb" or environment.get("TMUX") or term.startswith(("screen", "tmux")):
        return None
    if environment.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if "sixel" in term or term.startswith(_SIXEL_TERMS):
        return "sixel"
    return None


def encode(png: bytes, protocol: Protocol) -> bytes:
    """Return what to send to a terminal so that it shows a picture, with a line end."""
    return {"kitty": _kitty, "iterm2": _iterm2, "sixel": _sixel}[protocol](png) + b"\n"


def _kitty(png: bytes) -> bytes:
    data = base64.b64encode(png)
    chunks = [data[i : i + _KITTY_CHUNK] for i in range(0, len(data), _KITTY_CHUNK)]
    sent = []
    for number, chunk in enumerate(chunks):
        more = int(number + 1 < len(chunks))
        # a=T: transmit and show; f=100: PNG; q=2: no answer, which would end up in the shell's input.
        control = f"a=T,f=100,q=2,m={more}" if number == 0 else f"m={more}"
        sent.append(b"\x1b_G" + control.encode() + b";" + chunk + b"\x1b\\")
    return b"".join(sent)


def _iterm2(png: bytes) -> bytes:
    head = f"\x1b]1337;File=inline=1;size={len(png)};preserveAspectRatio=1:"
    return head.encode() + base64.b64encode(png) + b"\x07"


def _sixel(png: bytes) -> bytes:
    """Six rows of pixels at a time: for each color in them, which of the six have it, as one character a column."""
    with Image.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGB").quantize(_SIXEL_COLORS)
    pixels = np.asarray(image)
    height, width = pixels.shape
    palette = np.array(image.getpalette()).reshape(-1, 3)
    colors = [f"#{i};2;" + ";".join(str(round(part / 2.55)) for part in palette[i]) for i in np.unique(pixels)]
    bands = []
    for top in range(0, height, 6):
        band = pixels[top : top + 6]
        weights = 1 << np.arange(len(band))[:, None]
        lines = []
        for color in np.unique(band):
            bits = ((band == color) * weights).sum(axis=0)
            lines.append(f"#{color}" + _run_lengths(bits))
        bands.append("$".join(lines))
    return f'\x1bPq"1;1;{width};{height}{"".join(colors)}{"-".join(bands)}\x1b\\'.encode("ascii")


def _run_lengths(bits: np.ndarray) -> str:
    starts = np.flatnonzero(np.diff(bits, prepend=-1))
    lengths = np.diff(starts, append=len(bits))
    return "".join(
        f"!{n}{chr(63 + bits[start])}" if n > 3 else chr(63 + bits[start]) * n
        for start, n in zip(starts, lengths, strict=True)
    )
