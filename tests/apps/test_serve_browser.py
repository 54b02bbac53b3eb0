"""`soundspot serve` in a headless browser: a video, an image with audio, limits, and no request to anywhere else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.apps.localize.serve.page import HOST, served
from pipeline.apps.localize.serve.uploads import Limits, localize_upload
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.common.errors import SoundspotError
from tests.support.chromium import TIMEOUT_MS, launched, press_until
from tests.support.localizing import make_localizer, save_model
from tests.support.media_files import steady, write_media
from tests.support.projects import ROOT

pytest.importorskip("gradio", reason="pip install -e '.[app]'")
pytestmark = pytest.mark.slow
RATE = 16_000
LIMITS = Limits(size_mb=1, duration_s=3)


@pytest.fixture(scope="module")
def contacted():
    """Record the hosts that this process connects to."""
    hosts, connect = set(), socket.socket.connect

    def recorded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            hosts.add(address[0])
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", recorded)
        yield hosts


@pytest.fixture(scope="module")
def address(contacted):
    localizer = make_localizer()

    def localize(files, folder, on_progress):
        return localize_upload(files, folder, localizer, OverlaySettings(), LIMITS, on_progress=on_progress)

    with served(localize, LIMITS, model="runs/<b>/model.pt") as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with launched() as chromium:
        yield chromium


@pytest.fixture
def page(browser, address, contacted):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(TIMEOUT_MS)
    page.hosts, page.messages = set(), []
    page.on("request", lambda request: page.hosts.add(urlsplit(request.url).hostname))
    page.on("console", lambda each: each.type == "error" and page.messages.append(each.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#localize")
    yield page
    assert page.hosts <= {HOST, None}  # None: data: and blob:
    assert contacted <= {HOST}
    assert page.messages == []
    page.close()


def red_square(width=96, height=64):
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    frame[8:32, 8:32, 0] = 255
    return frame


def tone(seconds):
    return (0.4 * np.sin(2000 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)[None]


def video(path, seconds=1.0):
    times = steady(seconds, 10)
    return write_media(path, times=times, frames=[red_square()] * len(times), sound=tone(seconds))


def drop(page, *paths):
    """Upload files in place of those before, press the button and wait for the line below it; return it."""
    if page.locator("#files button[aria-label='Clear']").count():
        page.click("#files button[aria-label='Clear']")
    page.set_input_files("#files input[type=file]", [str(path) for path in paths])
    for path in paths:
        page.wait_for_selector(f"#files :text('{path.stem}')")
    before = page.inner_text("#message")
    page.click("#localize")
    page.wait_for_function(
        "before => {const line = document.querySelector('#message p[data-kind]'); return line && line.innerText !== before}",
        arg=before,
    )
    return page.inner_text("#message p[data-kind]")


def test_a_video(page, tmp_path):
    assert "10 frames, 10 maps, audio copied" in drop(page, video(tmp_path / "walk.mp4"))
    player = page.wait_for_selector("#video video")
    page.wait_for_function("video => video.readyState > 0", arg=player)
    assert player.evaluate("video => [video.videoWidth, video.videoHeight, video.error]") == [96, 64, None]
    assert page.wait_for_selector("#curve img").evaluate("image => image.naturalWidth") > 500
    page.wait_for_selector("#boxes :text('verdict')")
    links = page.locator("#outputs a[download]").evaluate_all("all => all.map((each) => [each.download, each.href])")
    assert [name for name, _ in links] == ["walk.json", "walk.mp4"]
    maps = json.loads(urlopen(links[0][1], timeout=60).read())["maps"]
    assert len(maps) == 10
    assert all(len(each["boxes"]) == 1 for each in maps)


def test_an_image_and_its_audio(page, tmp_path):
    Image.fromarray(red_square()).save(tmp_path / "bird.png")
    write_media(tmp_path / "song.wav", sound=tone(2), audio_codec="pcm_s16le")
    assert "96×64 pixels, sounding" in drop(page, tmp_path / "bird.png", tmp_path / "song.wav")
    image = page.wait_for_selector("#image img")
    page.wait_for_function("image => image.naturalWidth === 96", arg=image)
    assert not page.is_visible("#video")
    assert not page.is_visible("#curve")


def opened(browser, address, **options):
    page = browser.new_page(**options)
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(address)
    page.wait_for_selector("#localize")
    return page


def test_by_keyboard_from_the_upload_to_a_download(page, tmp_path):
    with page.expect_file_chooser() as chooser:
        press_until(page, "Tab", "document.activeElement.closest('#files') !== null")
        page.keyboard.press("Enter")
    chooser.value.set_files(str(video(tmp_path / "walk.mp4")))
    page.wait_for_selector("#files :text('walk')")
    press_until(page, "Tab", "document.activeElement.id === 'localize'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#message p[data-kind=done]")
    player = page.wait_for_selector("#video video")
    press_until(page, "Tab", "document.activeElement.getAttribute('aria-label') === 'play-pause-replay-button'")
    page.keyboard.press("Enter")
    page.wait_for_function("video => video.currentTime > 0", arg=player)
    press_until(page, "Tab", "document.activeElement.closest('#outputs a') !== null")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "walk.json"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone_the_page_is_for_everybody(browser, address, tmp_path, theme):
    from tests.support.accessibility import PHONE, sideways, small_targets, violations

    page = opened(browser, address, color_scheme=theme, **PHONE)
    # Gradio's button of an upload has the field inside.
    ours = {"without": ["nested-interactive"]}
    assert violations(page, **ours) == []
    for output in ("video", "image", "curve", "outputs", "boxes"):
        assert not page.is_visible(f"#{output}")
    with page.expect_file_chooser() as chooser:
        page.locator("#files").get_by_role("button").tap()
    chooser.value.set_files(str(video(tmp_path / "walk.mp4")))
    page.wait_for_selector("#files :text('walk')")
    page.locator("#localize").tap()
    page.wait_for_selector("#message p[data-kind=done]")
    page.wait_for_selector("#boxes :text('verdict')")
    assert violations(page, **ours) == []
    assert sideways(page) == []
    # The file has the same as the tree of boxes, whose handles are small.
    controls = [f"{each}:not(#boxes *)" for each in ("button", "[role=button]", ".download-link")]
    assert small_targets(page, ", ".join(controls)) == []
    # The label is above the video, not over it, and a result cannot be removed.
    label, player = (page.locator(each).bounding_box() for each in ("#video [data-testid=block-label]", "#video video"))
    assert label["y"] + label["height"] <= player["y"] + 1
    assert not page.is_visible("#outputs .label-clear-button")
    page.close()


def test_an_error_is_one_line_and_the_next_upload_works(page, tmp_path):
    damaged = tmp_path / "<img src=x onerror=alert(1)>.mp4"
    damaged.write_bytes(b"no video" * 100)
    line = drop(page, damaged)
    assert line.startswith("Error: ")
    assert line.count(".mp4") == 1
    assert str(tmp_path) not in line
    assert "soundspot-serve" not in line
    assert not page.locator("#message img").count()
    long = drop(page, video(tmp_path / "long.mp4", seconds=4))
    assert long == "Error: long.mp4: longer than 3 s; cut it, or start the server with a higher --max-duration"
    assert "10 frames" in drop(page, video(tmp_path / "short.mp4"))


def test_a_file_that_is_too_large_is_refused_while_it_is_uploaded(page, tmp_path):
    (tmp_path / "film.mp4").write_bytes(bytes(1_100_000))
    page.set_input_files("#files input[type=file]", str(tmp_path / "film.mp4"))
    line = page.wait_for_selector("[data-testid=toast-text]").inner_text()
    assert "maximum allowed size of 1" in line
    assert "film.mp4" in line
    page.messages.clear()  # the refused request


def test_a_request_under_another_name_is_refused(address):
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(address, headers={"Host": "elsewhere.example"}), timeout=60)


def test_the_server_listens_on_this_machine_alone(address):
    port = urlsplit(address).port
    listening = [each.laddr.ip for each in psutil.Process().net_connections() if each.laddr.port == port]
    assert set(listening) == {HOST}


def test_a_taken_port_is_an_error_and_the_folder_is_removed_at_the_end(address, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        pytest.raises(SoundspotError, match=rf"port {urlsplit(address).port} of 127.0.0.1 .* --port"),
        served(None, LIMITS, model="", port=urlsplit(address).port),
    ):
        pass
    with served(None, LIMITS, model="") as other:
        assert other != address
        assert len(list(tmp_path.glob("soundspot-serve-*"))) == 1
    assert not list(tmp_path.iterdir())


def test_a_request_of_a_page_from_elsewhere_is_refused(address):
    for origin in ("https://elsewhere.example", "null"):
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(address, headers={"Origin": origin}), timeout=60)
    assert urlopen(Request(address, headers={"Origin": address.rstrip("/")}), timeout=60).status == 200


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_removes_its_folder_however_it_is_stopped(tmp_path, how):
    model, scratch = save_model(tmp_path / "model.pt"), tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "pipeline.cli.main", "serve", "--model", str(model), "--device", "cpu"]
    # A proxy that does not exist: the server must not ask it for its own address.
    surroundings = os.environ | {"TMPDIR": str(scratch), "HTTP_PROXY": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)}
    surroundings.pop("NO_PROXY", None)
    surroundings.pop("no_proxy", None)
    with subprocess.Popen(
        command, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            assert list(scratch.glob("soundspot-serve-*"))
            # The note comes before the wait, in which signals are handled.
            while "stop with Ctrl-C" not in process.stderr.readline():
                pass
            time.sleep(1)
            process.send_signal(how)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert not list(scratch.glob("soundspot-serve-*"))
