"""The documentation builds without a warning, fetches nothing, and says what the program says."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import time

import click
import pytest

from pipeline import __version__
from pipeline.cli.main import soundspot
from pipeline.common.console import INTERRUPTED
from pipeline.features import store
from pipeline.manifests.boxes import BOX_COLUMNS
from pipeline.manifests.clips import CLIP_COLUMNS
from pipeline.methods.registry import METHODS
from pipeline.pseudo_labels.hdf5_file import ATTRIBUTES, AXES
from pipeline.shards.jpeg import JPEG_FIELDS
from pipeline.shards.writer import FIELDS
from pipeline.training.checkpoints import DESCRIPTION
from tests.support.documentation import blocks
from tests.support.projects import ROOT

DOCS = ROOT / "docs"
GAP = "…"
# Variables that are not ours alone.
OTHERS = (
    "DASK_SCHEDULER_ADDRESS",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OPENBLAS_THREAD_TIMEOUT",
    "NO_COLOR",
    "THP_MEM_ALLOC_ENABLE",
    "TQDM_DISABLE",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_built_and_says_something(site):
    for page in DOCS.rglob("*.md"):
        built = site / page.relative_to(DOCS).with_suffix(".html")
        assert "<h1" in built.read_text(), built
    assert "soundspot pseudo-labels neighbors" in (site / "command-line.html").read_text()
    assert 'id="pipeline.model.equations.iterative_loss"' in (site / "api/method.html").read_text()


@pytest.mark.slow
def test_the_site_fetches_nothing(site):
    """Links for the reader may lead out; what a browser loads by itself may not."""
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*>", page.read_text())
        assert not [tag for tag in tags if re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text()), sheet


@pytest.mark.slow
def test_the_equations_lead_to_their_code(site):
    page = (site / "paper.html").read_text()
    for place in ("equations.min_max", "equations.contrastive_loss", "equations.audio_relation"):
        assert f'href="api/method.html#pipeline.model.{place}"' in page


@pytest.mark.slow
def test_the_site_works_from_disk(site):
    """Opened as files: search, formulas, images and the link to the repository, and nothing comes from elsewhere."""
    from tests.support.chromium import TIMEOUT_MS, launched

    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "paper.html").as_uri())
        assert page.locator("math mfrac").first.bounding_box()["height"] > 15
        assert page.locator(".md-header .md-source").inner_text().strip() == f"soundspot {__version__}"
        results = page.locator(".md-search-result__link")
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while not results.count() and time.monotonic() < deadline:
            # What is typed before the index is built starts no search.
            page.fill("input[name=query]", "")
            page.locator("input[name=query]").press_sequentially("calibrate")  # the search listens to keys
            page.wait_for_timeout(2000)
        results.first.click()
        page.wait_for_function("!location.pathname.endsWith('/paper.html')")
        for built in (path for path in site.rglob("*.html") if "<img" in path.read_text()):
            page.goto(built.as_uri())
            broken = "[...document.images].filter(image => image.loading != 'lazy' && !image.naturalWidth).map(image => image.src)"
            assert page.evaluate(broken) == [], built
    assert [address for address in requests if not address.startswith(("file:", "data:", "about:"))] == []
    assert errors == []


@pytest.mark.slow
def test_the_pages_are_for_everybody(site):
    """On a phone, in both themes: text with formulas, tables, links and code."""
    from tests.support.accessibility import PHONE, sideways, violations
    from tests.support.chromium import launched

    # Browsers make blocks that scroll a stop for Tab; the theme's menus of code blocks have no name, nor can they get one.
    left_out = ["scrollable-region-focusable", "landmark-unique"]
    with launched() as browser:
        for theme, scheme in (("light", "default"), ("dark", "slate")):
            page = browser.new_page(color_scheme=theme, **PHONE)
            for name in ("paper", "tutorial"):
                page.goto((site / f"{name}.html").as_uri())
                page.wait_for_selector(f"body[data-md-color-scheme={scheme}]")
                assert violations(page, without=left_out) == [], (name, theme)
                assert sideways(page) == [], (name, theme)


def test_the_images_are_shown_and_small():
    images = {path.name: path.stat().st_size for path in (DOCS / "images").iterdir() if path.suffix != ".csv"}
    shown = re.findall(r"!\[[^\]]+\]\(images/([^)]+)\)", "".join(page.read_text() for page in DOCS.glob("*.md")))
    assert set(shown) == images.keys()
    of_the_demo = [size for name, size in images.items() if name.endswith((".gif", ".webp"))]  # `make docs-images`
    assert sum(of_the_demo) < 1.5e6


def test_the_command_line_reference_has_every_command_and_option():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    text = hooks.reference()

    def look(command: click.Command, path: str) -> None:
        section = text.split(f"## {path}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert all(option in section for option in parameter.opts), (path, parameter.opts)
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                if name not in hooks.ALIASES:
                    look(command.get_command(click.Context(command), name), f"{path} {name}")

    look(soundspot, "soundspot")


def messages() -> str:
    """Every text in the library, one a line: what is filled in is one ellipsis, backquotes are straight quotes."""
    texts = []
    for path in [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else GAP for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return re.sub(f"{GAP}+", GAP, "\n".join(" ".join(text.split()) for text in texts)).replace("`", "'")


def quoted() -> list[str]:
    text = (DOCS / "troubleshooting.md").read_text().split("## Messages of other programs")[0]
    return re.findall(r"^`(.+)`\n(?=:|`)", text, re.MULTILINE)


def test_every_quoted_message_is_one_of_the_program():
    known = messages()
    unknown = [message for message in quoted() if message not in known]
    assert not unknown
    assert len(quoted()) > 30


def test_every_kind_of_error_is_explained():
    from pipeline.common import errors

    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type)} - {"SoundspotError"}
    explained = (DOCS / "troubleshooting.md").read_text()
    assert {kind for kind in kinds if kind not in explained} == set()


def test_the_environment_variables_are_those_of_the_program():
    text = "".join(path.read_text() for folder in ("pipeline", "stages") for path in (ROOT / folder).rglob("*.py"))
    used = set(re.findall(rf"\b(?:SOUNDSPOT_[A-Z_]+[A-Z]|{'|'.join(OTHERS)})\b", text))
    described = set(re.findall(r"^\| `([A-Z_]+)` \|", (DOCS / "terminal.md").read_text(), re.MULTILINE))
    assert described == used


def test_the_exit_codes_are_those_of_the_program():
    codes = re.findall(r"^\| (\d+) \|", (DOCS / "terminal.md").read_text(), re.MULTILINE)
    assert codes == ["0", "1", str(click.UsageError.exit_code), str(INTERRUPTED)]


@pytest.mark.parametrize(
    "names",
    [
        (*FIELDS, *JPEG_FIELDS),
        tuple(AXES),
        (*store.AXES, *store.ORIGIN),
        ATTRIBUTES,
        CLIP_COLUMNS,
        BOX_COLUMNS,
        DESCRIPTION,
    ],
)
def test_the_formats_name_every_field(names):
    text = (DOCS / "formats.md").read_text()
    words = {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.split(r"[, ]+", span)}
    assert set(names) <= words


def test_every_method_is_described():
    spans = re.findall(r"`([a-z_0-9…]+)`", (DOCS / "methods.md").read_text())
    prefixes = tuple(span.rstrip(GAP) for span in spans if span.endswith(GAP))
    assert [name for name in METHODS if name not in spans and not name.startswith(prefixes)] == []


def test_the_method_in_twenty_lines_is_that_of_contributing():
    (shown,) = [block for block in blocks(DOCS / "methods.md") if block.language == "python"]
    (trained,) = [block for block in blocks(ROOT / "CONTRIBUTING.md") if block.language == "python"]
    assert shown.text == trained.text  # which tests/methods/test_methods.py trains
