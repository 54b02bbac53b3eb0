"""The Localizer, its calibration and the sounding regions."""

from __future__ import annotations

import json
import math
import re

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.apps.localize.localizer import Localizer, level_dbfs
from pipeline.apps.localize.regions import connected_regions
from pipeline.apps.localize.sliding_windows import SlidingWindows
from pipeline.common.errors import CheckpointError, MediaError
from pipeline.common.files import file_digest
from pipeline.common.project import CALIBRATION_FILE, shard_path
from pipeline.evaluation.calibration import (
    Calibration,
    find_calibration,
    read_calibration,
    write_calibration,
)
from pipeline.extraction.build_shard import ShardTask, build_shard
from pipeline.extraction.plan import plan_shards
from pipeline.figures.heatmap import upsampled
from pipeline.manifests.clips import Clip
from pipeline.media.audio import window_at
from pipeline.media.container import Deadline, MediaContainer
from pipeline.media.image import is_still, read_still
from pipeline.shards.reader import ShardSet
from tests.support.localizing import AUDIO, IMAGE_SIZE, Red, make_localizer, save_model
from tests.support.media_files import steady, write_media
from tests.support.splits import finish_split, listed

# ---------------------------------------------------------------------------- regions


def flood_fill(mask):
    """Connected parts by hand: sets of (row, col) that are linked by shared sides."""
    left = {(int(r), int(c)) for r, c in zip(*np.nonzero(mask), strict=True)}
    parts = []
    while left:
        part, todo = set(), [left.pop()]
        while todo:
            r, c = todo.pop()
            part.add((r, c))
            for near in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                if near in left:
                    left.remove(near)
                    todo.append(near)
        parts.append(part)
    return parts


@pytest.mark.parametrize("seed", range(5))
def test_regions_are_those_of_a_flood_fill(seed):
    rng = np.random.default_rng(seed)
    heat, response = rng.random((9, 13)), rng.normal(size=(9, 13))
    expected = []
    for part in flood_fill(heat > 0.6):
        rows, columns = zip(*part, strict=True)
        box = (min(columns) / 13, min(rows) / 9, (max(columns) + 1) / 13, (max(rows) + 1) / 9)
        expected.append((*box, max(response[cell] for cell in part), len(part) / heat.size))
    found = connected_regions(heat, response, delta_v=0.6)
    assert len(found) == len(expected)
    assert np.allclose(sorted(map(tuple, found)), sorted(expected))
    assert [region.score for region in found] == sorted((region.score for region in found), reverse=True)


def test_no_region_and_the_whole_frame():
    heat = np.full((4, 4), 0.5)
    assert connected_regions(heat, heat, delta_v=0.5) == []
    (whole,) = connected_regions(heat, heat, delta_v=0.4)
    assert whole == (0, 0, 1, 1, 0.5, 1)
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(2, 4\)"):
        connected_regions(heat, heat[:2], delta_v=0.5)


# ---------------------------------------------------------------------------- calibration


def test_rejected_shares_are_those_of_the_confidence_also_if_peaks_tie():
    random = np.random.default_rng(0)
    # Maps of zeros, as from MSSL where no class that is heard is positive anywhere.
    own = np.concatenate([np.zeros(20), random.uniform(size=180)])
    foreign = np.concatenate([np.zeros(80), random.uniform(size=120)])
    for peaks in (own, np.full(200, 0.3), np.maximum(own, 0.4)):
        calibration = Calibration.of(peaks, {"shuffled": foreign}, model="m", split="validation")
        for miss_rate in (0.0, 0.05, 0.1, 0.3, 0.9):
            confidences = {"own": map(calibration.confidence, peaks), "shuffled": map(calibration.confidence, foreign)}
            expected = {name: np.mean([each < miss_rate for each in found]) for name, found in confidences.items()}
            assert calibration.rejected(miss_rate) == pytest.approx(expected, abs=0.01)


def test_confidence_is_a_fraction_of_the_calibration_clips():
    peaks = np.random.default_rng(0).permutation(np.arange(1, 202) / 202)
    foreign = {"shuffled": peaks / 2, "hiss": np.full(50, -1.0), "hum": np.full(50, 9.0)}
    calibration = Calibration.of(peaks, foreign, model="m", split="validation")
    assert calibration.n_clips == 201
    for peak in (0.2, 0.5, 0.9):
        assert calibration.confidence(peak) == pytest.approx((peaks <= peak).mean(), abs=0.01)
    assert calibration.confidence(-1) == 0
    assert calibration.confidence(2) == 1
    assert calibration.confidence(0.0) == 0
    # The shuffled peaks are half as large: twice as many lie below.
    assert calibration.rejected(0.05) == pytest.approx({"own": 0.05, "shuffled": 0.1, "hiss": 1, "hum": 0}, abs=0.01)
    assert calibration.rejected(0.0) == {"own": 0, "shuffled": 0, "hiss": 0, "hum": 0}
    assert calibration.rejected(1.0) == {"own": 1, "shuffled": 1, "hiss": 1, "hum": 0}
    described = calibration.describe(0.05)
    assert re.search(r"\b201 clips \(validation\).*\b5%.*\b11%.*\b100%.*\b0%", described)


def test_calibration_file(tmp_path):
    peaks = np.random.default_rng(0).normal(size=20)
    calibration = Calibration.of(peaks, {"shuffled": peaks - 1}, model="m", split="test")
    path = tmp_path / CALIBRATION_FILE
    write_calibration(path, calibration)
    assert read_calibration(path) == calibration
    whole = path.read_text()
    damaged = [whole.replace(f'"{name}": [', f'"{name}": [9, ') for name in ("own", "shuffled")]
    assert whole not in damaged
    for content in ("", "[]", '{"format_version": 9}', *damaged):
        path.write_text(content)
        with pytest.raises(CheckpointError, match=r"calibration\.json"):
            read_calibration(path)


def test_calibration_is_found_for_its_own_weights_only(tmp_path):
    model = tmp_path / "runs" / "demo" / "ours" / "seed_1" / "model.pt"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    assert find_calibration(model) is None
    peaks = np.zeros(3)
    evaluated = tmp_path / "results" / "demo" / "maps" / "ours" / "seed_1" / CALIBRATION_FILE
    write_calibration(evaluated, Calibration.of(peaks, {}, model=file_digest(model), split="test"))
    assert find_calibration(model).split == "test"
    write_calibration(model.with_name(CALIBRATION_FILE), Calibration.of(peaks, {}, model="other", split="beside"))
    assert find_calibration(model).split == "test"
    write_calibration(
        model.with_name(CALIBRATION_FILE), Calibration.of(peaks, {}, model=file_digest(model), split="beside")
    )
    assert find_calibration(model).split == "beside"
    model.write_bytes(b"others")
    assert find_calibration(model) is None


# ---------------------------------------------------------------------------- audio


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "pcm_s16le"), ("mp4", "aac"), ("mkv", "libopus")])
def test_sliding_windows_equal_those_of_extraction(tmp_path, ending, codec):
    # Chirps instead of noise, which AAC replaces with different noise.
    t = np.arange(3 * 48_000) / 48_000
    sound = 0.4 * np.stack([np.sin(1000 * t**2), np.sin(300 * t + 500 * t**2)]).astype(np.float32)
    path = write_media(tmp_path / f"a.{ending}", times=steady(3, 10), sound=sound, rate=48_000, audio_codec=codec)
    with MediaContainer(path, deadline=Deadline(60)) as one, MediaContainer(path, deadline=Deadline(60)) as other:
        windows = SlidingWindows(one, clip_seconds=1.0, sample_rate=16_000)
        for centre_s in (0.0, 0.3, 0.31, 1.5, 2.9):
            found = windows.window(other.timestamp(centre_s))
            expected = window_at(other, other.timestamp(centre_s), clip_seconds=1.0, sample_rate=16_000)
            assert found.shape == (16_000,)
            # Matroska rounds times to milliseconds, and a seek sees other ones.
            lags = range(-16, 17) if ending == "mkv" else (0,)
            found = found / np.abs(found).max()
            assert min(np.abs(np.roll(found, lag) - expected)[16:-16].max() for lag in lags) < 5e-3, centre_s


def test_windows_beyond_the_audio_are_zero(tmp_path):
    sound = np.full((1, 16_000), 0.5, dtype=np.float32)
    path = write_media(tmp_path / "a.mp4", times=steady(4, 10), sound=sound)
    with MediaContainer(path, deadline=Deadline(60)) as source:
        early, late = source.timestamp(0.5), source.timestamp(3.0)
        windows = SlidingWindows(source, clip_seconds=1.0, sample_rate=16_000)
        assert np.abs(windows.window(early)).max() > 0.3
        assert (windows.window(late) == 0).all()


def test_level():
    assert level_dbfs(np.zeros(5, dtype=np.float32)) == -math.inf
    assert level_dbfs(np.array([0.1, -1.0])) == 0
    assert level_dbfs(np.array([0.001])) == pytest.approx(-60)


# ---------------------------------------------------------------------------- the Localizer


def scene(height=60, width=90):
    """A gray frame with a red rectangle, and the rectangle's slices."""
    frame = np.full((height, width, 3), 90, dtype=np.uint8)
    frame[height // 2 :, : width // 3] = (250, 10, 10)
    return frame, (slice(height // 2, None), slice(0, width // 3))


def noise(seconds=1.0, rate=AUDIO.sample_rate):
    return (0.2 * np.random.default_rng(0).normal(size=round(seconds * rate))).astype(np.float32)


def test_a_known_response_in_the_size_of_the_frame():
    frame, place = scene()
    response = make_localizer().localize(frame, noise(), AUDIO.sample_rate)
    assert response.shape == frame.shape[:2]
    assert response.dtype == np.float32
    inside = np.zeros(response.shape, dtype=bool)
    inside[place] = True
    assert response[inside].mean() > 0.8
    assert response[~inside].mean() < 0.15


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_responses_that_are_not_finite_are_an_error(value, monkeypatch):
    monkeypatch.setattr(Red, "encode_audio", lambda self, log_mel: torch.full((len(log_mel), 1), value))
    with pytest.raises(CheckpointError, match="not finite"):
        make_localizer().localize(scene()[0], noise(), AUDIO.sample_rate)


def test_batches_and_single_frames_agree():
    localizer = make_localizer()
    rng = np.random.default_rng(5)
    frames = [rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(3)]
    windows = [localizer.window(noise(0.5 + i / 2), AUDIO.sample_rate) for i in range(3)]
    together = localizer.localize_batch(frames, windows)
    for frame, window, found in zip(frames, windows, together, strict=True):
        alone = localizer.localize_batch([frame], [window])[0]
        assert np.allclose(alone.response, found.response, atol=1e-6)


def test_silence_is_reported_and_not_drawn():
    localizer = make_localizer()
    frame, _ = scene()
    quiet = noise() * 1e-4
    silent, heard, hushed = localizer.localize_batch([frame] * 3, [0 * noise(), noise(), quiet])
    assert (silent.verdict, heard.verdict, hushed.verdict) == ("silent", "sounding", "silent")
    assert silent.level_dbfs == -math.inf
    assert hushed.level_dbfs == pytest.approx(level_dbfs(noise() - noise().mean()) - 80, abs=1e-3)
    assert not silent.response.any()
    with pytest.raises(MediaError, match="silent"):
        localizer.localize(frame, quiet, AUDIO.sample_rate)
    assert make_localizer(silence_dbfs=-120.0).localize_batch([frame], [quiet])[0].verdict == "sounding"


@pytest.mark.parametrize("begin", [0, 0.3, 0.5])
@pytest.mark.parametrize("hiss", [0, 1e-4])
def test_a_constant_offset_is_silent(begin, hiss):
    """So is faint hiss on top of it, even if the audio starts within the window. A click or an added tone is not."""
    n = AUDIO.n_samples
    window = np.full(n, 0.3, dtype=np.float32) + np.float32(hiss) * np.random.default_rng(0).uniform(-1, 1, n)
    window[: round(begin * n)] = 0
    tone, click = window.copy(), np.zeros(n)
    tone[-n // 3 :] += 0.01 * np.sin(np.arange(len(tone[-n // 3 :])))
    click[n // 2] = 0.3
    windows = [each.astype(np.float32) for each in (window, tone, click)]
    found = make_localizer().localize_batch([scene()[0]] * 3, windows)
    assert [each.verdict for each in found] == ["silent", "sounding", "sounding"]
    assert found[0].level_dbfs < (-75 if hiss else -120)
    assert found[1].level_dbfs == pytest.approx(-40, abs=0.5)


def test_a_weak_response_is_not_found():
    frame, _ = scene()
    calibration = Calibration.of(np.linspace(0.5, 0.9, 101), {}, model="", split="validation")
    localizer = make_localizer(calibration=calibration)
    gray = np.full((40, 40, 3), 90, dtype=np.uint8)
    windows = [localizer.window(noise(), AUDIO.sample_rate)] * 2
    red, without = localizer.localize_batch([frame, gray], windows)
    assert (red.verdict, without.verdict) == ("sounding", "not found")
    assert red.confidence == 1
    assert without.confidence == 0
    always = make_localizer(calibration=calibration, miss_rate=0.0).localize_batch([gray], windows[:1])[0]
    assert always.verdict == "sounding"


def test_windows_of_other_rates_lengths_and_types():
    localizer = make_localizer()
    length = AUDIO.n_samples
    tone = np.sin(2 * np.pi * 440 * np.arange(4 * 48_000) / 48_000).astype(np.float32)
    window = localizer.window(tone, 48_000)
    t = (4 - AUDIO.clip_seconds) / 2 + np.arange(length) / AUDIO.sample_rate
    assert np.abs(window - np.sin(2 * np.pi * 440 * t)).max() < 1e-3
    short = localizer.window(np.ones(100, dtype=np.float32), AUDIO.sample_rate)
    assert (np.flatnonzero(short)[[0, -1]] == [length // 2 - 50, length // 2 + 49]).all()
    stereo = np.array([[0, 16384] * 50, [16384, 0] * 50], dtype=np.int16)
    assert np.abs(localizer.window(stereo, AUDIO.sample_rate)).max() == 0.25
    for wrong in (np.zeros((2, 2, 2)), np.zeros(0), np.array([np.nan]), np.zeros(3, dtype=complex)):
        with pytest.raises(ValueError, match=r"audio must be"):
            localizer.window(wrong, 8000)
    with pytest.raises(ValueError, match="a frame must be"):
        localizer.localize(np.zeros((4, 4), dtype=np.uint8), noise(), AUDIO.sample_rate)


def test_transposed_audio_and_invalid_rates():
    localizer = make_localizer()
    stereo = np.stack([noise(), -noise()])
    for sideways in (stereo.T, noise()[:, None]):
        with pytest.raises(ValueError, match=r"\(8000, [12]\).*audio\.T"):
            localizer.window(sideways, AUDIO.sample_rate)
    # The mean of the channels cancels out, so one of them is used.
    assert np.array_equal(localizer.window(stereo, AUDIO.sample_rate), stereo[0])
    for rate in (0, -8000, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"sample_rate .*{rate}"):
            localizer.window(noise(), rate)


@pytest.mark.parametrize(
    ("name", "values"), [("silence_dbfs", (1.0, math.nan, math.inf)), ("miss_rate", (-0.1, 1.1, math.nan))]
)
def test_thresholds_out_of_range(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{name} .*{value}"):
            make_localizer(**{name: value})


def test_regions_of_a_known_map():
    localizer = make_localizer()
    frame, _ = scene(64, 96)
    found = localizer.localize_batch([frame], [localizer.window(noise(), AUDIO.sample_rate)])[0]
    (region,) = localizer.regions(found.response)
    cell = 1 / (IMAGE_SIZE // Red.CELL)
    assert (region.x0, region.y0, region.x1, region.y1) == pytest.approx((0, 0.5, 1 / 3, 1), abs=cell)
    assert region.score > 0.8


def test_loading_requires_only_the_model(tmp_path):
    path = save_model(tmp_path / "model.pt")
    localizer = Localizer.load(str(path), device="cpu")
    assert (localizer.audio, localizer.image_size, localizer.delta_v) == (AUDIO, IMAGE_SIZE, 0.7)
    assert localizer.calibration is None
    assert localizer.name == file_digest(path)
    other = tmp_path / "other.json"
    write_calibration(other, Calibration.of(np.zeros(3), {}, model="other", split="test"))
    with pytest.raises(CheckpointError, match=r"other\.json: .*model\.pt"):
        Localizer.load(path, calibration=other)
    with pytest.raises(CheckpointError, match=r"none\.pt"):
        Localizer.load(tmp_path / "none.pt")


def test_maps_equal_those_of_the_pipeline(tmp_path):
    """Extraction, response_maps and upsampling, compared with the Localizer on the same media."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(20)]
    sound = (0.2 * rng.normal(size=(1, 2 * 22_050))).astype(np.float32)
    path = write_media(
        tmp_path / "a.mkv", times=steady(2, 10), frames=pictures, sound=sound, rate=22_050, audio_codec="pcm_s16le"
    )
    clip = Clip("a", video="a.mkv")
    (tmp_path / "shards").mkdir()
    (part,) = plan_shards(listed(tmp_path / "clips.csv", [clip]), "train", 1)
    build_shard(ShardTask(shard_path(tmp_path / "shards", 0), *part, tmp_path, AUDIO, IMAGE_SIZE, "", 60.0))
    finish_split(tmp_path / "shards")
    localizer = Localizer.load(save_model(tmp_path / "model.pt"), device="cpu")
    expected = localizer.model.response_maps(ShardSet.open(tmp_path / "shards"), batch_size=4, device="cpu")[0]
    with MediaContainer(path, deadline=Deadline(60)) as source:
        timestamp = source.timestamp(1.0)
        window = SlidingWindows(source, clip_seconds=AUDIO.clip_seconds, sample_rate=AUDIO.sample_rate).window(
            timestamp
        )
    with av.open(str(path)) as container:
        frame = next(p for p in container.decode(video=0) if p.pts * p.time_base >= 1).to_ndarray(format="rgb24")
    found = localizer.localize_batch([frame], [window])[0]
    assert np.abs(found.response - expected).max() < 1e-4
    response = localizer.localize(frame, sound, 22_050)
    enlarged_there = torch.nn.functional.interpolate(
        torch.from_numpy(expected)[None, None], size=frame.shape[:2], mode="bilinear", align_corners=False
    )[0, 0]
    assert np.abs(response - enlarged_there.numpy()).max() < 1e-3
    assert np.ptp(response) > 0.01


def test_enlarged_equals_torch_interpolation():
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], size=(33, 20), mode="bilinear")[
        0, 0
    ]
    assert np.allclose(upsampled(values, height=33, width=20), expected.numpy(), atol=1e-5)


def test_stills(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert is_still(tmp_path / "a.png")
    assert (read_still(tmp_path / "a.png") == pixels).all()
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn clockwise
    Image.fromarray(pixels).save(tmp_path / "b.png", exif=turned)
    assert (read_still(tmp_path / "b.png") == np.rot90(pixels, -1)).all()
    (tmp_path / "c.png").write_text(json.dumps({}))
    assert not is_still(tmp_path / "c.png")
    assert read_still(tmp_path / "c.png") is None
    assert not is_still(tmp_path / "none.png")
