"""Take the picture of the report page for the documentation, in Chromium.

python benchmarks/report_picture.py [--page results/demo/report/index.html] [--width 1200] [--height 900] [--dark] [--output docs/images/report.png]
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from pipeline.common.files import replacing

COLORS = 255  # a third of the size, and no visible difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--page", type=Path, default=Path("results/demo/report/index.html"))
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("docs/images/report.png"))
    options = parser.parse_args()
    with sync_playwright() as tools:
        # Debian's browser, if there is one; otherwise the one that `playwright install chromium` downloads.
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(
            viewport={"width": options.width, "height": options.height},
            color_scheme="dark" if options.dark else "light",
        )
        page.goto(options.page.resolve().as_uri(), wait_until="networkidle")
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        browser.close()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(options.output) as path:
        picture.quantize(COLORS, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
    print(f"wrote {options.output} ({options.output.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
