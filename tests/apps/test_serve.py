"""What is behind the page of `soundspot serve`: uploads, limits, messages, the curve. The page itself: test_serve_browser.py."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from pipeline.apps.localize.jobs import plan_jobs
from pipeline.apps.localize.run import run_job
from pipeline.apps.localize.serve import page
from pipeline.apps.localize.serve.page import served
from pipeline.apps.localize.serve.uploads import Limits, localize_upload
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.cli import serve as cli_serve
from pipeline.common.errors import LocalizationError, PackageError
from pipeline.figures.response_curve import response_curve
from tests.cli.test_main import run
from tests.support.localizing import make_localizer, save_model
from tests.support.media_files import steady, write_media

RATE = 16_000
LIMITS = Limits()
SETTINGS = OverlaySettings(maps_per_second=5)


def tone(seconds):
    return (0.4 * np.sin(2000 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)[None]


def half_red():
    """A frame whose left upper quarter is red at half intensity, so the highest response is 0.5."""
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    frame[:32, :32, 0] = 128
    return frame


def video(path, seconds=1.0, *, sound=None):
    times = steady(seconds, 10)
    sound = tone(seconds) if sound is None else sound
    return write_media(path, times=times, frames=[half_red()] * len(times), sound=sound)


def upload(folder, *files, limits=LIMITS, **options):
    return localize_upload(files, folder / "localized", make_localizer(), SETTINGS, limits, **options)


def test_a_video_gets_what_the_command_writes(tmp_path):
    source = video(tmp_path / "a.mp4")
    reached = []
    answer = upload(tmp_path, source, on_progress=lambda time_s, total_s: reached.append(time_s))
    (job,) = plan_jobs([source], tmp_path / "command")
    assert run_job(job, tmp_path / "command", make_localizer(), SETTINGS, as_json=True) == answer.summary
    assert [path.name for path in answer.files] == ["a.json", "a.mp4"]
    for path in answer.files:
        assert path.read_bytes() == (tmp_path / "command" / path.name).read_bytes()
    assert answer.record == json.loads(answer.files[0].read_text())
    assert [each["response"] for each in answer.record["maps"]] == pytest.approx([0.5] * 5, abs=0.02)
    assert reached[-1] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("turned", [False, True])
def test_an_image_and_its_audio_in_any_order(tmp_path, turned):
    image, audio = tmp_path / "bird.png", tmp_path / "song.wav"
    Image.fromarray(half_red()).save(image)
    write_media(audio, sound=tone(2), audio_codec="pcm_s16le")
    answer = upload(tmp_path, *([audio, image] if turned else [image, audio]))
    assert [path.name for path in answer.files] == ["bird.png.json", "bird.npz", "bird.png"]
    (box,) = answer.record["boxes"]
    assert answer.record["verdict"] == "sounding"
    assert answer.record["response"] == pytest.approx(128 / 255, abs=1e-3)
    assert (box["x0"], box["y0"]) == (0, 0)
    assert 0.4 < box["x1"] < 0.6


def test_only_the_outputs_of_the_last_upload_are_kept(tmp_path):
    upload(tmp_path, video(tmp_path / "a.mp4"))
    answer = upload(tmp_path, video(tmp_path / "b.mp4"))
    assert sorted((tmp_path / "localized").iterdir()) == sorted(answer.files)


def test_a_large_file_and_a_long_video_are_refused(tmp_path):
    source = video(tmp_path / "a.mp4", seconds=3)
    size = source.stat().st_size / 2**20
    with pytest.raises(LocalizationError, match=r"^a\.mp4: .* limit of .*--max-size"):
        upload(tmp_path, source, limits=Limits(size_mb=size * 0.9))
    with pytest.raises(LocalizationError, match=r"^a\.mp4: longer than 2\.5 s; .*--max-duration"):
        upload(tmp_path, source, limits=Limits(duration_s=2.5))
    assert upload(tmp_path, source, limits=Limits(size_mb=size * 1.1, duration_s=3.5)).record["frames"] == 30


def test_a_message_names_files_without_their_folders(tmp_path):
    silent = video(tmp_path / "a.mp4", sound=np.zeros((1, RATE), dtype=np.float32))
    with pytest.raises(LocalizationError, match=r"^a\.mp4: silent throughout"):
        upload(tmp_path, silent)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(LocalizationError, match=r"^empty\.mp4: is empty"):
        upload(tmp_path, tmp_path / "empty.mp4")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no file yet"),
        (["a.png"], r"^a\.png: drop .* one image together with one audio file"),
        (["a.png", "b.png"], r"^a\.png, b\.png: drop one video"),
        (["a.mp4", "b.mp4"], r"^a\.mp4, b\.mp4: drop one video"),
    ],
)
def test_other_sets_of_files_are_refused(tmp_path, names, message):
    for name in names:
        Image.fromarray(half_red()).save(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_bytes(
            b"a"
        )
    with pytest.raises(LocalizationError, match=message):
        upload(tmp_path, *(tmp_path / name for name in names))


def test_the_curve_shows_the_responses_and_marks_the_verdicts():
    maps = [
        {"time_s": 0.0, "verdict": "sounding", "response": 0.5},
        {"time_s": 0.1, "verdict": "silent", "response": None},
        {"time_s": 0.2, "verdict": "not found", "response": 0.25},
    ]
    line, sounding, missed, silent = response_curve(maps).axes[0].get_lines()
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0.5], [0.1, np.nan], [0.2, 0.25]])
    np.testing.assert_array_equal(sounding.get_xydata(), [[0, 0.5]])
    np.testing.assert_array_equal(missed.get_xydata(), [[0.2, 0.25]])
    np.testing.assert_array_equal(silent.get_xydata(), [[0.1, 0.25]])


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(PackageError, match=r"gradio .*'\.\[app\]'"), served(None, Limits(), model=""):
        pass


def test_the_command_prints_the_address_and_ctrl_c_ends_it(tmp_path, monkeypatch, capsys):
    seen = []

    @contextmanager
    def fake(localize, limits, **options):
        answer = localize([video(tmp_path / "a.mp4")], tmp_path / "localized", lambda time_s, total_s: None)
        seen.extend([answer.record["frames"], limits, options])
        yield "http://127.0.0.1:7860/"

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "served", fake)
    monkeypatch.setattr(cli_serve, "_wait", interrupted)
    model = save_model(tmp_path / "model.pt")
    assert run("serve", "--model", str(model), "--device", "cpu", "--max-size", "5", "--port", "8000") == 0
    assert capsys.readouterr().out == "http://127.0.0.1:7860/\n"
    options = {"model": str(model), "port": 8000, "open_browser": False}
    assert seen == [10, Limits(size_mb=5), options]
