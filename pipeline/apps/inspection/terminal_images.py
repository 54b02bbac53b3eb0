"""Images inside a terminal, if the terminal announces that it can show them.

Two protocols: kitty's graphics and iTerm2's inline images. Support is read from the environment only, because querying
the terminal leaves garbage on those that do not understand the query. tmux and screen swallow images, so inside them
there are none.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Literal

ImageProtocol = Literal["kitty", "iterm2"]
_KITTY_CHUNK = 4096  # the most base64 characters that the protocol allows in one escape sequence


def image_protocol(environment: Mapping[str, str], *, is_terminal: bool) -> ImageProtocol | None:
    """Return the protocol in which the terminal takes images, None if it takes none.

    Parameters
    ----------
    environment : mapping of str to str
        TERM, TERM_PROGRAM, KITTY_WINDOW_ID, TMUX and LC_TERMINAL are read.
    is_terminal : bool
        Whether the output goes to a terminal at all.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if not is_terminal or term == "dumb" or environment.get("TMUX") or term.startswith(("screen", "tmux")):
        return None
    if environment.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return None


def encode(png: bytes, protocol: ImageProtocol) -> bytes:
    """Return the bytes that make a terminal show a PNG image, with a line end."""
    return (_kitty(png) if protocol == "kitty" else _iterm2(png)) + b"\n"


def _kitty(png: bytes) -> bytes:
    data = base64.b64encode(png)
    chunks = [data[i : i + _KITTY_CHUNK] for i in range(0, len(data), _KITTY_CHUNK)]
    sent = []
    for number, chunk in enumerate(chunks):
        more = int(number + 1 < len(chunks))
        # a=T: transmit and show; f=100: PNG; q=2: no reply, which would end up in the shell's input.
        control = f"a=T,f=100,q=2,m={more}" if number == 0 else f"m={more}"
        sent.append(b"\x1b_G" + control.encode() + b";" + chunk + b"\x1b\\")
    return b"".join(sent)


def _iterm2(png: bytes) -> bytes:
    head = f"\x1b]1337;File=inline=1;size={len(png)};preserveAspectRatio=1:"
    return head.encode() + base64.b64encode(png) + b"\x07"
