"""`soundspot localize` on small real media: outputs, reasons, resuming, JSON."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise

import av
import click
import numpy as np
import pytest
from PIL import Image

from pipeline.apps.localize import jobs as localization_jobs
from pipeline.apps.localize import run as localization_runs
from pipeline.apps.localize.jobs import plan_jobs
from pipeline.apps.localize.localizer import Localizer
from pipeline.cli import export as cli_export
from pipeline.cli import localize as cli_localize
from pipeline.cli.options import FiniteRange
from pipeline.common.errors import LocalizationError
from pipeline.common.files import file_digest, locked
from pipeline.common.project import CALIBRATION_FILE
from pipeline.evaluation.calibration import Calibration, write_calibration
from pipeline.media.clip import read_frame
from tests.cli.test_evaluate import PARAMS
from tests.cli.test_main import run
from tests.support.heif_files import write_grid
from tests.support.localizing import save_model
from tests.support.media_files import numbered_frame, spoil_sound, steady, truncate, write_media

RATE = 16_000


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model.pt")
    return tmp_path


def tone(seconds):
    return (0.4 * np.sin(2000 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)[None]


def video(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_media(path, times=steady(seconds, 10), sound=tone(seconds))


def image(path, size=(90, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def localize(*inputs, out="out", options=()):
    return run("localize", *inputs, "-o", out, "--model", "model.pt", "--device", "cpu", *options)


def files(folder):
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in found if name != ".soundspot.lock"]


def test_a_video(project, capsys):
    video(project / "a.mp4")
    assert localize("a.mp4", options=["--json"]) == 0
    printed = capsys.readouterr()
    assert "a.mp4 -> out/a.mp4: 0.94 s, 10 frames, 10 maps, audio copied" in printed.out
    assert printed.out.endswith("1 localized\n")
    assert "no calibration" in printed.err
    assert files(project / "out") == ["a.json", "a.mp4"]
    with av.open("out/a.mp4") as container:
        assert len(list(container.decode(video=0))) == 10
    facts = json.loads((project / "out" / "a.json").read_text())
    assert (facts["input"], facts["frames"], facts["seconds"]) == ("a.mp4", 10, pytest.approx(0.94))
    assert facts["model"] == file_digest(project / "model.pt")
    assert [each["time_s"] for each in facts["maps"]] == pytest.approx([i / 10 for i in range(10)])
    for each in facts["maps"]:
        assert each["verdict"] == "sounding"
        for box in each["boxes"]:
            assert 0 <= box["x0"] < box["x1"] <= 1
            assert 0 <= box["y0"] < box["y1"] <= 1


def test_an_image_with_its_audio_file(project, capsys):
    image(project / "bird.jpg")
    write_media(project / "bird.wav", sound=tone(2), audio_codec="pcm_s16le")
    write_media(project / "other.wav", sound=tone(2), audio_codec="pcm_s16le")
    assert localize("bird.jpg", options=["--json"]) == 0
    assert files(project / "out") == ["bird.jpg.json", "bird.jpg.npz", "bird.jpg.png"]
    assert "90×60 pixels, sounding" in capsys.readouterr().out
    with np.load("out/bird.jpg.npz") as arrays:
        localizer = Localizer.load("model.pt", device="cpu")
        with av.open("bird.wav") as container:
            sound = np.concatenate([s.to_ndarray() for s in container.decode(audio=0)], axis=1)
        frame = np.asarray(Image.open("bird.jpg").convert("RGB"))
        assert arrays["response"].shape == (60, 90)
        assert np.abs(arrays["response"] - localizer.localize(frame, sound, RATE)).max() < 1e-4
        assert arrays["boxes"].shape[1] == 5
        assert str(arrays["verdict"]) == "sounding"
    drawn = read_frame(project / "out" / "bird.jpg.png", image_size=32).astype(int)
    assert np.abs(drawn - read_frame(project / "bird.jpg", image_size=32)).max() > 20
    assert localize("bird.jpg", out="given", options=["--audio", "other.wav"]) == 0
    assert files(project / "given") == ["bird.jpg.npz", "bird.jpg.png"]


def test_nothing_is_written_outside_the_output_folder(project, capsys):
    video(project / "a.mp4")
    (project / "out").mkdir()
    before = sorted(project.iterdir())
    with locked(project / "out", LocalizationError, inside=True):
        assert localize("a.mp4") == 1
    assert "error: out: another process" in capsys.readouterr().err
    assert localize("a.mp4") == 0
    assert sorted(project.iterdir()) == before


def test_a_name_that_is_not_unicode(project):
    named = project / os.fsdecode(b"caf\xe9.mp4")
    try:
        video(project / "a.mp4").rename(named)
    except OSError:
        pytest.skip("this file system only accepts Unicode names")
    command = [
        sys.executable,
        "-m",
        "pipeline.cli.main",
        "localize",
        named.name,
        "-o",
        "out",
        "--model",
        "model.pt",
        "--json",
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9.mp4 -> out/caf\udce9.mp4: 0.94 s" in done.stdout
    assert [os.fsencode(name) for name in files(project / "out")] == [b"caf\xe9.json", b"caf\xe9.mp4"]


def test_a_folder_with_good_and_bad_files(project, capsys):
    video(project / "in" / "deep" / "a.mp4")
    video(project / "in" / "a.mkv")
    (project / "in" / "empty.mp4").touch()
    (project / "in" / "wrong.avi").write_text("text")
    (project / "in" / "notes.txt").write_text("text")
    write_media(project / "in" / "mute.mp4", times=steady(0.5, 10))
    write_media(project / "in" / "silent.mp4", times=steady(0.5, 10), sound=0 * tone(0.5))
    write_media(project / "in" / "deaf.wav", sound=tone(1), audio_codec="pcm_s16le")
    image(project / "in" / "pair.png")
    write_media(project / "in" / "pair.wav", sound=tone(1), audio_codec="pcm_s16le")
    image(project / "in" / "alone.png")
    assert localize("in") == 1
    printed = capsys.readouterr()
    assert files(project / "out") == ["a.mkv.mp4", "deep/a.mp4", "pair.npz", "pair.png"]
    assert printed.out.splitlines()[-1] == "3 localized, 6 failed"
    failed = {line.split(": ")[1].removeprefix("in/"): line for line in printed.err.splitlines() if "failed" in line}
    assert "has no audio" in failed["mute.mp4"]
    assert "silent throughout" in failed["silent.mp4"]
    assert "has no video" in failed["deaf.wav"]
    assert "0 bytes" in failed["empty.mp4"]
    assert "cannot be read" in failed["wrong.avi"]
    assert "--audio" in failed["alone.png"]
    assert len(failed) == 6
    assert "Traceback" not in printed.err


def test_two_files_of_a_folder_with_the_same_output(project, capsys):
    video(project / "in" / "a.mp4")
    image(project / "in" / "a.png")
    write_media(project / "in" / "a.wav", sound=tone(1), audio_codec="pcm_s16le")
    assert localize("in", options=["--json"]) == 0
    assert files(project / "out") == ["a.json", "a.mp4", "a.npz", "a.png", "a.png.json"]
    assert json.loads((project / "out" / "a.json").read_text())["input"] == "a.mp4"
    assert json.loads((project / "out" / "a.png.json").read_text())["input"] == "a.png"
    video(project / "in" / "b.mkv")
    video(project / "in" / "b.mkv.mp4")
    capsys.readouterr()
    for done in ("1 localized, 2 already done, 1 failed", "3 already done, 1 failed"):
        assert localize("in", options=["--json"]) == 1
        printed = capsys.readouterr()
        assert printed.out.splitlines()[-1] == done
        (line,) = (line for line in printed.err.splitlines() if line.startswith("failed: "))
        assert re.match(r"failed: in/b\.mkv\.mp4: .*out/b\.mkv\.mp4.* b\.mkv\b", line)
    assert json.loads((project / "out" / "b.mkv.json").read_text())["input"] == "b.mkv"


def test_an_output_that_is_not_requested_causes_no_conflict(tmp_path):
    names = ("a.png.mp4", "a.png")
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "a.png").write_bytes(b"P6 1 1 255 abc")

    def conflicts(**options):
        return [bool(job.problem) for job in plan_jobs([tmp_path], tmp_path / "out", **options)]

    assert conflicts() == [False, False]
    assert conflicts(as_json=True) == [False, True]


def test_a_folder_is_listed_once_for_all_its_images(tmp_path, monkeypatch):
    for i in range(3):
        (tmp_path / f"p{i}.png").write_bytes(b"P6 1 1 255 abc")
        (tmp_path / f"p{i}.wav").touch()
    (tmp_path / "p1.FLAC").touch()
    (tmp_path / "p3.png").write_bytes(b"P6 1 1 255 abc")
    listed = []
    whole = localization_jobs._audio_files_in
    monkeypatch.setattr(localization_jobs, "_audio_files_in", lambda folder: listed.append(folder) or whole(folder))
    jobs = plan_jobs([tmp_path], tmp_path / "out")
    assert listed == [tmp_path]
    found = {job.source.name: job.audio and job.audio.name for job in jobs if job.is_image}
    assert found == {"p0.png": "p0.wav", "p1.png": "p1.FLAC", "p2.png": "p2.wav", "p3.png": None}


def test_phone_photos_are_images_whatever_their_names(tmp_path):
    write_grid(tmp_path / "photo.heic", np.zeros((70, 90, 3), dtype=np.uint8))
    write_grid(tmp_path / "shared.jpg", np.zeros((70, 90, 3), dtype=np.uint8))
    write_grid(tmp_path / "web.avif", np.zeros((70, 90, 3), dtype=np.uint8), kind="AVIF")
    (tmp_path / "broken.heic").write_bytes((tmp_path / "photo.heic").read_bytes()[:300])
    (tmp_path / "photo.wav").touch()
    found = {
        job.source.name: (job.is_image, job.audio and job.audio.name) for job in plan_jobs([tmp_path], tmp_path / "out")
    }
    images = dict.fromkeys(("shared.jpg", "web.avif", "broken.heic"), (True, None))
    assert found == images | {"photo.heic": (True, "photo.wav")}


def write_odd_files(folder):
    """Write unusual but realistic files; return the names that must be localized, and a fragment of each other file's error."""
    folder.mkdir()
    seconds, wav = {"times": steady(1, 10), "sound": tone(1)}, {"audio_codec": "pcm_s16le"}
    wide = [np.pad(numbered_frame(number), ((0, 1), (0, 3), (0, 0))) for number in range(10)]
    good = {
        "plain.mp4": seconds,
        'it\'s a "film", 1 % new.mp4': seconds,
        "-o.mp4": seconds,
        "süß 犬.MP4": seconds,
        "turned.mp4": seconds | {"rotation": 90},
        "turned and mirrored.mp4": seconds | {"rotation": 90, "mirrored": True},
        "upside down.mov": seconds | {"rotation": 180},
        "really a matroska.mp4": seconds | {"container_format": "matroska"},
        "really an mp4.mkv": seconds | {"container_format": "mp4"},
        "old.avi": seconds | {"video_codec": "mpeg4", "audio_codec": "mp3", "times": steady(1, 25)},
        "of odd size.mkv": seconds | {"video_codec": "ffv1", "frames": wide},
        "with B-frames.mp4": seconds | {"bframes": 2},
        "stereo at 44100.mp4": seconds | {"sound": np.tile(tone(1), (2, 3))[:, :44_100], "rate": 44_100},
        "one picture.mp4": seconds | {"times": steady(0.1, 10)},
        "late sound.mkv": seconds | {"sound_start": 0.4},
        "sound with a hole.mkv": seconds | {"sound": tone(2), "sound_gap": (0.5, 0.7)},
        "uneven.mp4": seconds | {"times": [*steady(0.3, 10), *(0.5 + each for each in steady(0.5, 25))]},
    }
    for name, options in good.items():
        write_media(folder / name, **options)
    image(folder / "a picture.jpeg")
    write_media(folder / "a picture.wav", sound=tone(1), **wav)
    bad = {
        "no sound.mp4": "has no audio",
        "no picture.mp4": "has no video",
        "a sound.mkv": "has no video",
        "silent.mp4": "silent throughout",
        "empty.mp4": "0 bytes",
        "text.mp4": "cannot be read",
        "half.mp4": "cannot be read",
        "alone.jpg": "an image without audio",
        "really a picture.mp4": "an image without audio",
        "half picture.png": "",
    }
    write_media(folder / "no sound.mp4", times=steady(1, 10))
    write_media(folder / "no picture.mp4", sound=tone(1))
    write_media(folder / "a sound.mkv", sound=tone(1), container_format="wav", **wav)
    write_media(folder / "silent.mp4", times=steady(1, 10), sound=0 * tone(1))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("<html>404: not found</html>\n" * 50)
    truncate(write_media(folder / "half.mp4", **seconds), 0.5)  # an MP4's index is at its end
    image(folder / "alone.jpg")
    (folder / "really a picture.mp4").write_bytes((folder / "alone.jpg").read_bytes())
    image(folder / "half picture.png")
    truncate(folder / "half picture.png", 0.5)
    return {*good, "a picture.jpeg"}, bad


def write_damaged_files(folder):
    """Write files that are partly readable; whether they can be localized depends on the decoder."""
    for name, fraction in (("cut.mkv", 0.6), ("cut early.mkv", 0.2), ("cut.ts", 0.7), ("cut.wav", 0.5)):
        sound = {"audio_codec": "pcm_s16le"} if name.endswith("wav") else {"times": steady(2, 10)}
        truncate(write_media(folder / name, sound=tone(2), **sound), fraction)
    rng = np.random.default_rng(0)
    for name in ("scratched.mp4", "scratched.mkv", "scratched.ts"):
        path = write_media(folder / name, times=steady(2, 10), sound=tone(2))
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
        data[rng.integers(len(data) // 10, len(data) * 9 // 10, 60)] ^= 0x55
        path.write_bytes(data.tobytes())
    return {"cut.mkv", "cut early.mkv", "cut.ts", "cut.wav", "scratched.mp4", "scratched.mkv", "scratched.ts"}


@pytest.mark.slow
def test_a_folder_of_odd_files(project, capfd):
    """Each file is either localized completely or reported on one line; output of the libraries is suppressed."""
    good, bad = write_odd_files(project / "in")
    uncertain = write_damaged_files(project / "in")
    (project / "in" / "a folder.mp4").mkdir()
    planned = {job.source.name for job in plan_jobs([project / "in"], project / "out")}
    assert planned == good | bad.keys() | uncertain
    capfd.readouterr()
    assert localize("in", options=["--json"]) == 1
    printed = capfd.readouterr()
    note, *lines = printed.err.splitlines()
    assert note.startswith("no calibration")
    assert "internal error" not in printed.err
    failed = {}
    for line in lines:
        head, path, reason = line.split(": ", 2)
        assert head == "failed"
        failed[path.removeprefix("in/")] = reason
    assert len(failed) == len(lines)
    *told, last = printed.out.splitlines()
    done = {line.split(" -> ")[0].removeprefix("in/"): line.split(" -> ")[1].split(": ")[0] for line in told}
    assert last == f"{len(done)} localized, {len(failed)} failed"
    assert done.keys() | failed.keys() == planned
    assert not done.keys() & failed.keys()
    assert good <= done.keys()
    assert {name: words for name, words in bad.items() if words not in failed.get(name, "")} == {}
    assert not list((project / "out").rglob("*.tmp"))
    for name, output in done.items():
        facts = json.loads((project / output).with_suffix(".json").read_text())
        assert facts["input"] == name
        if output.endswith(".mp4"):
            check_video(project / output, facts, audio_is_intact=name in good)


def check_video(path, facts, *, audio_is_intact, least_s=0.1):
    """All frames can be decoded and have increasing timestamps, and the audio is the source's."""
    with av.open(str(path)) as container:
        pictures = list(container.decode(video=0))
    assert len(pictures) == facts["frames"]
    assert all(one.pts < other.pts for one, other in pairwise(pictures))
    samples = damaged = 0
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        for packet in container.demux(stream):
            try:
                samples += sum(frame.samples for frame in packet.decode())
            except av.FFmpegError:  # damaged in the source, and copied
                damaged += 1
    assert damaged == 0 or not audio_is_intact
    assert samples >= max(1, (0.9 if audio_is_intact else least_s) * stream.rate)


def test_an_image_whose_audio_cannot_be_decoded(project, capsys):
    image(project / "a.png")
    spoil_sound(write_media(project / "b.mkv", sound=tone(1), audio_codec="flac"))
    assert localize("a.png", options=["--audio", "b.mkv"]) == 1
    assert "failed: b.mkv: its audio cannot be decoded" in capsys.readouterr().err


def test_finished_outputs_are_skipped(project, capsys):
    video(project / "a.mp4")
    image(project / "b.png")
    write_media(project / "b.wav", sound=tone(1), audio_codec="pcm_s16le")
    assert localize("a.mp4", "b.png", "b.wav") == 0
    before = {name: (project / "out" / name).stat().st_mtime_ns for name in files(project / "out")}
    assert localize("a.mp4", "b.png", "b.wav") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 already done"
    assert {name: (project / "out" / name).stat().st_mtime_ns for name in before} == before
    # An output with different settings is not accepted.
    assert localize("a.mp4", options=["--smooth", 1]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert localize("a.mp4", options=["--smooth", 1, "--overwrite"]) == 0
    (project / "out" / "a.mp4").unlink()
    assert localize("a.mp4") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 localized"
    # The batch size does not change the output.
    assert localize("a.mp4", options=["--batch-size", 3, "--time-limit", 99]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 already done"


def test_different_content_of_the_same_size_is_a_different_input(project, capsys):
    image(project / "b.png")
    write_media(project / "b.wav", sound=tone(1), audio_codec="pcm_s16le")
    assert localize("b.png") == 0
    before = (project / "b.wav").stat()
    write_media(project / "b.wav", sound=tone(1)[:, ::-1].copy(), audio_codec="pcm_s16le")
    os.utime(project / "b.wav", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (project / "b.wav").stat().st_size == before.st_size
    assert localize("b.png") == 1
    assert "failed: out/b.png: exists" in capsys.readouterr().err


def test_an_unreadable_input_does_not_stop_the_run(project, monkeypatch, capsys):
    video(project / "a.mp4")
    video(project / "b.mp4")
    whole = localization_runs.file_digest

    def refused(path):
        if path.name == "a.mp4":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(localization_runs, "file_digest", refused)
    assert localize("a.mp4", "b.mp4") == 1
    printed = capsys.readouterr()
    assert "failed: a.mp4: cannot be read (Permission denied)" in printed.err
    assert printed.out.endswith("1 localized, 1 failed\n")


def test_files_from_elsewhere_are_not_replaced(project, capsys):
    video(project / "a.mp4")
    image(project / "b.jpg")
    write_media(project / "b.wav", sound=tone(1), audio_codec="pcm_s16le")
    image(project / "out" / "b.jpg.png")
    (project / "out" / "a.json").write_text("{}")
    before = {name: (project / "out" / name).read_bytes() for name in ("b.jpg.png", "a.json")}
    assert localize("a.mp4", "b.jpg", options=["--json"]) == 1
    refused = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in refused] == ["out/a.json", "out/b.jpg.png"]
    assert all("--overwrite" in line for line in refused)
    assert {name: (project / "out" / name).read_bytes() for name in before} == before
    # An existing video with different settings is not replaced either, although the requested JSON is missing.
    (project / "out" / "a.json").unlink()
    assert localize("a.mp4") == 0
    assert localize("a.mp4", options=["--json", "--smooth", 1]) == 1
    assert not (project / "out" / "a.json").exists()
    assert localize("a.mp4", options=["--json"]) == 0
    assert (project / "out" / "a.json").exists()


def test_an_outdated_json_is_deleted(project):
    video(project / "a.mp4")
    video(project / "b.mp4")
    (project / "out").mkdir()
    (project / "out" / "b.json").write_text('{"by": "hand"}')
    assert localize("a.mp4", options=["--json"]) == 0
    # The same output again still matches the JSON.
    assert localize("a.mp4", options=["--overwrite"]) == 0
    assert files(project / "out") == ["a.json", "a.mp4", "b.json"]
    assert localize("a.mp4", "b.mp4", options=["--overwrite", "--smooth", 1]) == 0
    assert files(project / "out") == ["a.mp4", "b.json", "b.mp4"]


def test_a_kill_leaves_no_partial_file(project):
    video(project / "long.mp4", seconds=30)
    command = [sys.executable, "-m", "pipeline.cli.main", "localize", "long.mp4", "-o", "out", "--model", "model.pt"]
    process = subprocess.Popen([*command, "--maps-per-second", "0"])
    end = time.monotonic() + 240

    def begun():
        return list((project / "out").glob(".long.mp4.*.tmp"))

    while process.poll() is None and not begun() and time.monotonic() < end:
        time.sleep(0.02)
    assert begun()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (project / "out" / "long.mp4").exists()
    video(project / "long.mp4")
    assert localize("long.mp4") == 0
    assert files(project / "out") == ["long.mp4"]


def test_an_interrupted_job_is_130_and_leaves_nothing(project, monkeypatch, capsys):
    video(project / "a.mp4")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Localizer, "localize_batch", interrupt)
    assert localize("a.mp4") == 130
    assert files(project / "out") == []


def test_a_missing_input_or_an_empty_folder_does_not_stop_the_run(project, capsys):
    video(project / "a.mp4")
    (project / "empty").mkdir()
    assert localize("none.mp4", "a.mp4", "empty", options=["--json"]) == 1
    printed = capsys.readouterr()
    failed = [line for line in printed.err.splitlines() if line.startswith("failed: ")]
    assert failed == [
        "failed: none.mp4: no such file or folder",
        "failed: empty: contains no file with a video, image or audio extension",
    ]
    assert printed.out.endswith("1 localized, 2 failed\n")
    assert files(project / "out") == ["a.json", "a.mp4"]
    assert localize("none.png", options=["--audio", "a.mp4"]) == 1
    assert "failed: none.png: no such file" in capsys.readouterr().err


def test_the_default_model_is_the_newest_run_on_the_active_dataset(project, monkeypatch, capsys):
    video(project / "a.mp4")
    (project / "params.yaml").write_text(PARAMS)
    monkeypatch.delenv("SOUNDSPOT_MODEL", raising=False)
    model_of = {}
    places = ("squares/old", "squares/new", "squares/new/seed_7", "squares/initialize", "circles/newest")
    for number, place in enumerate(places):
        folder = project / "runs" / place
        folder.mkdir(parents=True)
        model_of[place] = file_digest(save_model(folder / "model.pt", seed=number + 1))
        os.utime(folder / "model.pt", (1000 + number, 1000 + number))

    def used(*options, out="localized"):
        assert run("localize", "a.mp4", "--device", "cpu", "--json", "--overwrite", *options) == 0
        return json.loads((project / out / "a.json").read_text())["model"]

    assert used() == model_of["squares/new"]
    assert "model: runs/squares/new/model.pt" in capsys.readouterr().err
    assert used("--dataset", "circles") == model_of["circles/newest"]
    assert used("--seed", 7) == model_of["squares/new/seed_7"]
    os.utime(project / "runs/squares/old/model.pt", (2000, 2000))
    assert used() == model_of["squares/old"]
    monkeypatch.setenv("SOUNDSPOT_MODEL", "runs/squares/new")
    assert used() == model_of["squares/new"]
    assert used("--model", "model.pt", "-o", "out", out="out") == file_digest(project / "model.pt")
    monkeypatch.delenv("SOUNDSPOT_MODEL")
    assert run("localize", "a.mp4", "--dataset", "triangles") == 1
    assert "runs/triangles: no trained model" in capsys.readouterr().err


def test_an_internal_error_does_not_stop_the_run(project, monkeypatch, capsys):
    video(project / "a.mp4")
    video(project / "b.mp4")
    whole = Localizer.localize_batch
    calls = []

    def once(self, frames, windows):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("odd")
        return whole(self, frames, windows)

    monkeypatch.setattr(Localizer, "localize_batch", once)
    assert localize("a.mp4", "b.mp4") == 1
    printed = capsys.readouterr()
    assert "failed: a.mp4: internal error: RuntimeError: odd" in printed.err
    assert printed.out.endswith("1 localized, 1 failed\n")
    assert files(project / "out") == ["b.mp4"]


def test_verbose_prints_the_traceback_of_an_internal_error(project, monkeypatch, capsys):
    video(project / "a.mp4")

    def deep_down(*_):
        raise RuntimeError("odd")

    monkeypatch.setattr(Localizer, "localize_batch", deep_down)
    for verbose in (False, True):
        monkeypatch.setattr(cli_localize, "is_verbose", lambda verbose=verbose: verbose)
        assert localize("a.mp4") == 1
        printed = capsys.readouterr().err
        assert ("in deep_down" in printed) is verbose
        assert printed.endswith("failed: a.mp4: internal error: RuntimeError: odd\n")


@pytest.mark.parametrize(
    ("time_s", "total_s", "text"),
    [(12.4, 60.0, "12 of 60 s"), (12.4, None, "12 s"), (61.0, 60.0, "61 s"), (0.0, 0.6, "0 of 1 s")],
)
def test_progress_text(time_s, total_s, text):
    assert cli_localize.progress_text(time_s, total_s) == text


def test_calibration_decides_what_is_found(project, capsys):
    video(project / "a.mp4")
    peaks = np.full(10, 5.0)  # more than any cosine
    foreign = {"shuffled": peaks - 9}
    calibration = Calibration.of(peaks, foreign, model=file_digest(project / "model.pt"), split="validation")
    write_calibration(project / CALIBRATION_FILE, calibration)
    assert localize("a.mp4", options=["--json"]) == 0
    printed = capsys.readouterr()
    assert "source not found in 100% of the maps" in printed.out
    assert re.search(r"\b10 clips \(validation\), which is few.* 1% to 37%.*\b5%", printed.err)
    facts = json.loads((project / "out" / "a.json").read_text())
    assert {(each["verdict"], each["confidence"]) for each in facts["maps"]} == {("not found", 0.0)}
    assert localize("a.mp4", out="always", options=["--miss-rate", 0]) == 0
    assert "not found" not in capsys.readouterr().out


def test_a_variant_of_another_dataset_seed_and_settings_file(project, capsys):
    video(project / "a.mp4")
    text = PARAMS.replace("dataset: squares", "dataset: circles").replace("  squares:", "  circles:")
    (project / "other.yaml").write_text(text)
    made_by = {}
    for number, place in enumerate(("circles/good", "squares/good", "squares/good/seed_7")):
        folder = project / "runs" / place
        folder.mkdir(parents=True)
        made_by[place] = file_digest(save_model(folder / "model.pt", seed=number + 1))
    for place, options in {
        "circles/good": [],
        "squares/good": ["--dataset", "squares"],
        "squares/good/seed_7": ["--dataset", "squares", "--seed", 7],
    }.items():
        out = project / place.replace("/", "-")
        options = [*options, "--params", "other.yaml", "--json"]
        assert run("localize", "a.mp4", "-o", out, "--model", "good", "--device", "cpu", *options) == 0
        assert json.loads((out / "a.json").read_text())["model"] == made_by[place]
    assert run("localize", "a.mp4", "-o", "out", "--model", "good", "--params", "other.yaml", "--seed", 3) == 1
    assert re.search(r"seed_3\b.*other\.yaml", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--smooth", "nan"),
        ("--maps-per-second", "inf"),
        ("--silence-dbfs", "nan"),
        ("--silence-dbfs", "-inf"),
        ("--miss-rate", "nan"),
        ("--time-limit", "inf"),
    ],
)
def test_numbers_are_finite(project, capsys, option, value):
    assert localize("a.mp4", options=[option, value]) == 2
    assert f"Invalid value for '{option}': {value}" in capsys.readouterr().err


def test_no_command_accepts_nan_or_infinity():
    for command in (cli_localize.localize, cli_export.export):
        floats = [each for each in command.params if isinstance(each.type, click.types.FloatParamType)]
        assert floats
        assert all(isinstance(each.type, FiniteRange) for each in floats)


def test_errors_are_one_line(project, capsys):
    def error(*arguments, **options):
        assert localize(*arguments, **options) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    video(project / "one" / "a.mp4")
    video(project / "two" / "a.mp4")
    assert re.search(r"one/a\.mp4 .*two/a\.mp4 .*out/a\.mp4", error("one/a.mp4", "two/a.mp4"))
    assert "one/a.mp4: is an input" in error("one/a.mp4", out="one")
    assert "one: is the input folder" in error("one", out="one")
    assert "two/a.mp4: --audio" in error("one/a.mp4", options=["--audio", "two/a.mp4"])
    assert "none.wav: no such audio file" in error("one/a.mp4", options=["--audio", "none.wav"])
    assert "model.pt: is a file" in error("one/a.mp4", out="model.pt")
    assert run("localize", "one", "-o", "out", "--model", "none.pt") == 1
    assert "none.pt: no such model" in capsys.readouterr().err
    assert run("localize", "one", "-o", "out") == 1
    assert "no params.yaml here" in capsys.readouterr().err
    assert run("localize", "-o", "out", "--model", "model.pt") == 2
    assert not (project / "out").exists()
