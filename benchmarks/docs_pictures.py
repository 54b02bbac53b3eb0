"""Take the pictures of the documentation from the results of the demo: the report and the browser of clips in Chromium, what commands draw
and print, and a frame of a localized video.

python benchmarks/docs_pictures.py [--only report terminal …] [--output docs/images]
"""

from __future__ import annotations

import argparse
import html
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from PIL import Image
from playwright.sync_api import sync_playwright

from pipeline.common.files import replacing

REPORT = Path("results/demo/report/index.html")
QUALITY = 85  # of WebP; a quarter of the size of PNG, and no visible difference
GAP = 10  # pixels between frames
LARGEST = 1000  # pixels along a side; pages show less
CLIP = "train-00042"
SHOWN = ("scores", f"pl show iterative last {CLIP} -k 3 --no-image")
TERMINAL = """<body style="margin: 0"><pre style="display: inline-block; margin: 0; padding: 16px; background: #17202a; color: #e5e9ec;
font: 13px/1.35 'DejaVu Sans Mono', monospace">%s</pre></body>"""


@contextmanager
def browser() -> Iterator[Any]:
    with sync_playwright() as tools:
        # Debian's browser, if there is one; otherwise the one that `playwright install chromium` downloads.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = tools.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield chromium
        chromium.close()


def soundspot(*arguments: str) -> str:
    command = [sys.executable, "-m", "pipeline.cli.main", "--quiet", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout


def screenshot(address: str, *, width: int, height: int, part: str | None = None, ready: str = "body") -> Image.Image:
    """Return the first screen of a page, or one part of it."""
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        page.goto(address, wait_until="networkidle")
        page.wait_for_selector(ready)
        # It would cover a part.
        page.evaluate("document.querySelectorAll('nav').forEach(nav => nav.style.position = 'static')")
        return Image.open(io.BytesIO((page.locator(part).first if part else page).screenshot()))


def report() -> Image.Image:
    return screenshot(REPORT.resolve().as_uri(), width=1200, height=900)


def curves() -> Image.Image:
    return screenshot(REPORT.resolve().as_uri(), width=1000, height=900, part="#loss .chart")


def browse() -> Image.Image:
    command = [sys.executable, "-m", "pipeline.cli.main", "browse", "iterative"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as server:
        assert server.stdout
        try:
            return screenshot(server.stdout.readline().strip(), width=1200, height=900, ready="html[data-ready]")
        finally:
            server.terminate()


def terminal() -> Image.Image:
    text = "\n".join(f"$ soundspot {command}\n{soundspot(*command.split())}" for command in SHOWN)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "terminal.html")
        page.write_text(f"<!doctype html><meta charset=utf-8>{TERMINAL % html.escape(text.rstrip())}", encoding="utf-8")
        return screenshot(page.as_uri(), width=1200, height=900, part="pre")


def pl_show() -> Image.Image:
    return drawn("pl", "show", "iterative", "last", CLIP)


def pl_compare() -> Image.Image:
    return drawn("pl", "compare", "iterative", "first", "last", "--top", "3")


def drawn(*arguments: str) -> Image.Image:
    """Return the figure that a command writes with -o."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figure.png")
        soundspot(*arguments, "-o", str(path))
        figure = Image.open(path)
        figure.load()
    return figure


def localized() -> Image.Image:
    """Return three frames of a localized clip of the demo, that of the median score."""
    with tempfile.TemporaryDirectory() as folder:
        soundspot("demo", "localize", "-o", folder)
        (path,) = Path(folder).glob("*.mp4")
        with av.open(str(path)) as container:
            frames = [frame.to_image() for frame in container.decode(video=0)]
    side, chosen = 2 * frames[0].width, [frames[len(frames) * part // 4] for part in (1, 2, 3)]
    strip = Image.new("RGB", (3 * side + 2 * GAP, side), "white")
    for column, frame in enumerate(chosen):
        strip.paste(frame.resize((side, side)), (column * (side + GAP), 0))
    return strip


PICTURES: dict[str, Callable[[], Image.Image]] = {
    each.__name__.replace("_", "-"): each for each in (report, curves, browse, terminal, pl_show, pl_compare, localized)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES))
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        picture = PICTURES[name]().convert("RGB")
        picture.thumbnail((1200 if name == "report" else LARGEST,) * 2)
        target = options.output / f"{name}.webp"
        with replacing(target) as path:
            picture.save(path, format="WEBP", quality=QUALITY, method=6)
        print(f"wrote {target} ({target.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
