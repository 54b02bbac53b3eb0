"""Video overlays: all frames, timestamps and audio samples are preserved."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.apps.localize.localizer import SILENCE_DBFS, Localization
from pipeline.apps.localize.video import overlay as video_overlay
from pipeline.apps.localize.video.overlay import overlay_video
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.common.errors import MediaError
from pipeline.evaluation.calibration import Calibration
from pipeline.media.audio import peak_to_peak_within
from pipeline.media.container import Deadline, MediaContainer
from pipeline.media.video import upright
from tests.support.localizing import AUDIO, make_localizer
from tests.support.media_files import impulses, number_of, numbered_frame, spoil_sound, steady, truncate, write_media
from tests.support.odd_media import frequency_of, joined, recording

RATE = 16_000


def tones(seconds, rate=RATE, channels=1):
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * (300 + 100 * c) * t) for c in range(channels)]).astype(np.float32)


def decode(path):
    """Return what a player shows: frames (n, row, col, 3), their times, the samples, and the time of the first."""
    with av.open(str(path)) as container:
        shown = [(p.to_ndarray(format="rgb24"), p.pts * p.time_base) for p in container.decode(video=0)]
    with av.open(str(path)) as container:
        heard = [(s.to_ndarray(), s.pts * s.time_base) for s in container.decode(audio=0)]
    pictures, times = zip(*shown, strict=True)
    return np.stack(pictures), list(times), np.concatenate([x for x, _ in heard], axis=-1), heard[0][1]


def run(source, tmp_path, *, localizer=None, on_map=None, **settings):
    target = tmp_path / "overlay.tmp"
    summary = overlay_video(source, target, localizer or make_localizer(), OverlaySettings(**settings), on_map=on_map)
    return target, summary


def test_frames_times_and_samples_are_preserved(tmp_path):
    source = write_media(tmp_path / "a.mp4", times=steady(3, 25), sound=tones(3), bframes=2)
    # Without a heat map, so that the numbers in the frames are readable.
    target, summary = run(source, tmp_path, localizer=make_localizer(calibration=never(), miss_rate=1.0))
    before, after = decode(source), decode(target)
    assert [number_of(p) >> 4 for p in after[0]] == [number_of(p) >> 4 for p in before[0]]
    assert after[1] == before[1]
    assert (after[2] == before[2]).all()
    assert after[3] == before[3]
    assert (summary.frames, summary.seconds, summary.audio) == (75, pytest.approx(3), "copied")
    assert sum(summary.verdicts.values()) == 30


def never():
    """A calibration for which no response is strong enough at a miss rate of 1."""
    return Calibration.of(np.full(5, 9.0), {}, model="red", split="test")


def test_the_output_plays(tmp_path):
    source = write_media(tmp_path / "a.mp4", times=steady(1, 10), sound=tones(1))
    target, _ = run(source, tmp_path)
    with av.open(str(target)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert audio.codec_context.name == "aac"
        assert float(video.duration * video.time_base) == pytest.approx(1, abs=0.1)
        assert "mp4" in container.format.name
    content = target.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_heat_is_drawn_over_red_areas(tmp_path):
    pictures = [np.full((96, 128, 3), 60, dtype=np.uint8) for _ in range(10)]
    for i, each in enumerate(pictures):
        each[:48, (0 if i < 5 else 64) : (64 if i < 5 else 128)] = (250, 20, 20)
    source = write_media(tmp_path / "a.mp4", times=steady(1, 10), frames=pictures, sound=tones(1))
    maps = []
    target, _ = run(source, tmp_path, on_map=maps.append)
    painted = decode(target)[0].astype(float)
    for i, shown in enumerate(painted):
        sounding = shown[:48, :64] if i < 5 else shown[:48, 64:]
        # The upper end of inferno is pale yellow, the lower end is dark.
        assert sounding[16:32, 16:48, 1].mean() > 150
        assert shown[60:].mean() < 70
    assert [timed.time_s for timed in maps] == pytest.approx([i / 10 for i in range(10)])
    boxes = [(r.x0, r.y0, r.x1, r.y1) for timed in maps for r in timed.regions]
    for i, box in enumerate(boxes):
        assert box == pytest.approx((0, 0, 0.5, 0.5) if i < 5 else (0.5, 0, 1, 0.5), abs=0.13)
    assert len(boxes) == 10


class Counting:
    """Stand-in for a Localizer without a network: all cells of the n-th map are n."""

    audio = AUDIO
    silence_dbfs = SILENCE_DBFS

    def __init__(self):
        self.count = 0
        self.batches = []
        self.drawn = []
        self.windows = []

    def localize_batch(self, frames, windows):
        self.batches.append(len(frames))
        self.windows += list(windows)
        found = []
        for _ in frames:
            found.append(Localization("sounding", np.full((2, 2), float(self.count), np.float32), -3.0, None))
            self.count += 1
        return found

    def heat(self, response):
        self.drawn.append(float(response[0, 0]))
        return np.zeros((2, 2), np.float32)

    def regions(self, response):
        return []


@pytest.mark.parametrize(("rate", "expected"), [(0, 50), (5, 10), (10, 20), (25, 50), (100, 50)])
def test_map_rate(tmp_path, rate, expected):
    source = write_media(tmp_path / "a.mp4", times=steady(2, 25), sound=tones(2))
    stub = Counting()
    times = []
    run(source, tmp_path, localizer=stub, on_map=lambda timed: times.append(timed.time_s), maps_per_second=rate)
    assert stub.count == expected
    assert max(stub.batches) == 8
    gaps = np.diff(times)
    assert gaps.min() >= (1 / rate if rate else 0) - 0.05


@pytest.mark.parametrize("claims", [True, False])
def test_progress_is_reported_with_the_duration(tmp_path, claims):
    options = {} if claims else {"live": "1"}
    source = write_media(tmp_path / "a.mkv", times=steady(2, 10), sound=tones(2), container_options=options)
    told = []
    settings = OverlaySettings(batch_size=5)
    summary = overlay_video(
        source, tmp_path / "o.tmp", Counting(), settings, on_progress=lambda *each: told.append(each)
    )
    assert [time for time, _ in told] == pytest.approx([0.5, 1.0, 1.5, summary.seconds])
    assert {end for _, end in told} == {summary.claimed_s}
    assert summary.claimed_s == (pytest.approx(2, abs=0.1) if claims else None)


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    times = [Fraction(n, 100) for n in (0, 4, 8, 50, 51, 52, 120, 200)]
    source = write_media(tmp_path / "a.mp4", times=times, sound=tones(2.2))
    maps = []
    target, summary = run(source, tmp_path, localizer=Counting(), on_map=maps.append)
    assert decode(target)[1] == times
    assert summary.frames == 8
    assert [timed.time_s for timed in maps] == pytest.approx([0, 0.5, 1.2, 2.0])


def test_smoothing_is_off_by_default_and_averages_past_maps(tmp_path):
    source = write_media(tmp_path / "a.mp4", times=steady(1, 10), sound=tones(1))
    stub = Counting()
    run(source, tmp_path, localizer=stub)
    assert stub.drawn == list(range(10))
    stub = Counting()
    run(source, tmp_path, localizer=stub, smooth_s=0.3)
    assert stub.drawn == pytest.approx([0, 0.5, 1, 2, 3, 4, 5, 6, 7, 8])


def test_each_window_is_centered_at_its_frame(tmp_path):
    sound = impulses(2, RATE, [1.0]) + 0.001
    source = write_media(
        tmp_path / "a.mkv", times=steady(2, 10), sound=sound.astype(np.float32), audio_codec="pcm_s16le"
    )
    stub = Counting()
    run(source, tmp_path, localizer=stub)
    for i, window in enumerate(stub.windows):
        away = abs(i / 10 - 1) - AUDIO.clip_seconds / 2
        if away < -0.01:
            expected = (1.0 - i / 10 + AUDIO.clip_seconds / 2) * AUDIO.sample_rate
            assert abs(int(window.argmax()) - expected) <= 1
        elif away > 0.01:
            assert window.max() < 0.1


def test_audio_in_other_codecs_is_re_encoded_in_sync(tmp_path):
    times = [0.5, 1.25]
    sound = impulses(2, 44_100, times, channels=2)
    source = write_media(
        tmp_path / "a.mkv", times=steady(2, 10), sound=sound, rate=44_100, audio_codec="pcm_s16le", sound_start=0.25
    )
    target, summary = run(source, tmp_path)
    assert summary.audio == "re-encoded as AAC"
    with av.open(str(target)) as container:
        found = []
        for block in container.decode(audio=0):
            peak = np.abs(block.to_ndarray()).max(axis=0)
            if peak.max() > 0.3:
                found.append(float(block.pts * block.time_base) + peak.argmax() / 44_100)
    assert found == pytest.approx([time + 0.25 for time in times], abs=0.002)


def test_a_short_gap_in_the_audio_is_written_as_silence(tmp_path):
    """Players ignore small steps of the time stamps, and would play everything after the gap too early."""
    sound = impulses(2, 44_100, [0.5, 1.25])
    source = write_media(
        tmp_path / "a.mkv",
        times=steady(2, 10),
        sound=sound,
        rate=44_100,
        audio_codec="pcm_s16le",
        sound_gap=(1.0, 0.11),
    )
    target, _ = run(source, tmp_path)
    _, _, samples, begin = decode(target)
    found = np.flatnonzero(np.abs(samples[0]) > 0.3)
    assert float(begin) + found[[0, -1]] / 44_100 == pytest.approx([0.5, 1.36], abs=0.002)


def test_a_rotated_video_comes_out_upright(tmp_path):
    pictures = [np.full((96, 128, 3), 60, dtype=np.uint8)] * 4
    pictures[0][:48, :64] = (250, 20, 20)
    source = write_media(tmp_path / "a.mp4", times=steady(0.4, 10), frames=pictures, sound=tones(0.4), rotation=90)
    target, _ = run(source, tmp_path)
    with av.open(str(source)) as container:
        stored = next(container.decode(video=0))
        expected = upright(stored.to_ndarray(format="rgb24"), stored)
    assert expected.shape == (128, 96, 3)
    red = expected[:, :, 0].astype(int) - expected[:, :, 1] > 100
    painted = decode(target)[0][0].astype(int)
    assert painted.shape == (128, 96, 3)
    rows, columns = np.nonzero(red)
    inside = painted[rows.min() + 16 : rows.max() - 16, columns.min() + 16 : columns.max() - 16]
    assert inside[..., 1].mean() > 150
    assert painted[~red][:, 1].mean() < 80


@pytest.mark.parametrize("size", [(95, 127), (1, 1), (2, 300)])
def test_odd_sizes(tmp_path, size):
    pictures = [np.full((*size, 3), 200, dtype=np.uint8)] * 3
    source = write_media(
        tmp_path / "a.mkv", times=steady(0.3, 10), frames=pictures, sound=tones(0.3), video_codec="ffv1"
    )
    target, summary = run(source, tmp_path)
    assert decode(target)[0].shape == (3, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert summary.frames == 3


def test_one_frame_and_a_window_longer_than_the_media(tmp_path):
    source = write_media(tmp_path / "a.mp4", times=[Fraction(0)], sound=tones(0.2))
    target, summary = run(source, tmp_path)
    assert len(decode(target)[0]) == 1
    assert summary.verdicts["sounding"] == 1


def test_silent_parts_show_a_notice_and_no_heat_map(tmp_path):
    sound = tones(4)
    sound[:, : 2 * RATE] = 0
    pictures = [np.full((192, 256, 3), 200, dtype=np.uint8)] * 40
    source = write_media(tmp_path / "a.mkv", times=steady(4, 10), frames=pictures, sound=sound, audio_codec="pcm_s16le")
    maps = []
    target, summary = run(source, tmp_path, on_map=maps.append)
    shown = decode(target)[0].astype(int)
    # A window of 1 s centered before 1.5 s contains only silence.
    assert [timed.found.verdict for timed in maps] == ["silent"] * 15 + ["sounding"] * 25
    assert not any(timed.regions for timed in maps[:15])
    assert np.abs(shown[:15, 100:] - 200).max() <= 3
    assert shown[:15, :40].min() < 100
    # The map of a uniform frame is 0 everywhere, so only the color bar is drawn.
    assert np.abs(shown[20:, :140] - 200).max() <= 3
    assert (np.abs(shown[20:, 140:, 128:] - 200).max(axis=(1, 2, 3)) > 100).all()
    assert summary.verdicts == {"sounding": 25, "silent": 15, "not found": 0}


def test_media_that_cannot_be_localized(tmp_path):
    def reason(path):
        with pytest.raises(MediaError) as caught:
            run(path, tmp_path)
        assert str(caught.value).startswith(str(path))
        return str(caught.value)

    assert "has no audio" in reason(write_media(tmp_path / "a.mp4", times=steady(1, 10)))
    assert "has no video" in reason(write_media(tmp_path / "b.mp4", sound=tones(1)))
    silent = write_media(tmp_path / "c.mp4", times=steady(1, 10), sound=0 * tones(1))
    assert "silent throughout" in reason(silent)
    (tmp_path / "d.mp4").write_bytes(b"")
    assert "0 bytes" in reason(tmp_path / "d.mp4")
    (tmp_path / "e.mp4").write_text("no video")
    assert "cannot be read" in reason(tmp_path / "e.mp4")


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_a_silent_video_is_detected_before_encoding(tmp_path, monkeypatch, offset):
    def opened(*args, **settings):
        raise AssertionError("encoding started")

    monkeypatch.setattr(video_overlay, "VideoWriter", opened)
    faint = np.full((1, 2 * RATE), offset) + 1.0e-4 * np.sign(tones(2))  # -80 dBFS
    source = write_media(
        tmp_path / "a.mkv", times=steady(2, 10), sound=faint.astype(np.float32), audio_codec="pcm_s16le"
    )
    with pytest.raises(MediaError, match="silent throughout"):
        run(source, tmp_path)
    # With a lower threshold it is localized: the writer is opened.
    with pytest.raises(AssertionError, match="encoding started"):
        run(source, tmp_path, localizer=make_localizer(silence_dbfs=-90.0))


def test_audio_that_cannot_be_decoded(tmp_path):
    source = write_media(tmp_path / "a.mkv", times=steady(1, 10), sound=tones(1), audio_codec="flac")
    spoil_sound(source)
    with pytest.raises(MediaError, match=r"a\.mkv: .*audio cannot be decoded"):
        run(source, tmp_path)


def test_audio_after_the_last_window_does_not_count(tmp_path):
    sound = np.zeros((1, 4 * RATE), dtype=np.float32)
    sound[:, 3 * RATE :] = tones(1)
    source = write_media(tmp_path / "a.mkv", times=steady(1, 10), sound=sound, audio_codec="pcm_s16le")
    with pytest.raises(MediaError, match="silent in every audio window"):
        run(source, tmp_path)


@pytest.mark.parametrize(("samples", "within"), [
    ([0.0], True), ([0.1, -0.1], True), ([0.1, -0.11], False), ([0.0, np.nan], False), ([0.0, np.inf], False),
])  # fmt: skip
def test_peak_to_peak_amplitude(tmp_path, samples, within):
    sound = np.zeros((1, 2 * RATE), dtype=np.float32)
    sound[:, -len(samples) :] = samples
    source = write_media(tmp_path / "a.wav", sound=sound, audio_codec="pcm_f32le")
    with MediaContainer(source, deadline=Deadline(10)) as opened:
        assert peak_to_peak_within(opened, 0.2 + 1e-6) is within


def test_a_truncated_file_is_processed_as_far_as_possible(tmp_path):
    source = write_media(
        tmp_path / "a.mkv",
        times=steady(4, 25),
        sound=tones(4),
        frames=[numbered_frame(i * 17 % 4096) for i in range(100)],
    )
    target, summary = run(truncate(source, 0.6), tmp_path)
    assert 30 < summary.frames < 90
    assert len(decode(target)[0]) == summary.frames
    assert summary.claimed_s == pytest.approx(4, abs=0.1)


def test_the_time_limit(tmp_path):
    source = write_media(tmp_path / "a.mp4", times=steady(2, 25), sound=tones(2))
    with pytest.raises(MediaError, match="--time-limit"):
        run(source, tmp_path, time_limit_s=0.01)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *(("maps_per_second", value, "at least 0") for value in (-1, math.inf, math.nan)),
        *(("smooth_s", value, "at least 0") for value in (-0.1, math.inf, math.nan)),
        *(("time_limit_s", value, "above 0") for value in (0, math.inf, math.nan)),
        ("batch_size", 0, "at least 1"),
        ("crf", 52, "0 to 51"),
    ],
)
def test_settings_out_of_range(name, value, wanted):
    with pytest.raises(ValueError, match=rf"{name} .*{wanted}.*{value}"):
        OverlaySettings(**{name: value})


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path):
    class Forgetting(Counting):
        def localize_batch(self, frames, windows):
            found = super().localize_batch(frames, windows)
            self.windows.clear()
            return found

    peaks = []
    for seconds in (4, 16):
        source = write_media(tmp_path / f"{seconds}.mp4", times=steady(seconds, 25), sound=tones(seconds))
        run(source, tmp_path, localizer=Counting())  # imports what is imported late
        tracemalloc.start()
        run(source, tmp_path, localizer=Forgetting())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The frames of twelve more seconds would take 11 MB.
    assert peaks[1] < peaks[0] + 500_000


def tones_of(samples, rate, seconds):
    """The strongest frequency at each time, Hz."""
    parts = [samples[..., round((s - 0.25) * rate) : round((s + 0.25) * rate)].reshape(-1) for s in seconds]
    return [frequency_of(part, rate) for part in parts]


def test_audio_that_steps_back_or_changes_its_channels(tmp_path):
    """As in spliced transport streams: the second part begins 60 ms early, and is mono."""
    parts = [
        recording(tmp_path / "a.ts", first=0, start=Fraction(0), frequency=440, channels=2),
        recording(tmp_path / "b.ts", first=16, start=Fraction(294, 100), frequency=880, channels=1),
    ]
    target, summary = run(joined(tmp_path / "both.ts", parts), tmp_path)
    _, _, samples, begin = decode(target)
    assert summary.frames == 150
    assert samples.shape[-1] / 48_000 == pytest.approx(6, abs=0.1)
    assert begin == pytest.approx(0, abs=0.03)
    for found, expected in zip(tones_of(samples[0], 48_000, (1, 2, 4, 5)), (440, 440, 880, 880), strict=True):
        assert found == pytest.approx(expected, abs=5)


@pytest.mark.parametrize(
    "starts", [(Fraction(10), Fraction(0)), (Fraction(0), Fraction(0)), (Fraction(0), Fraction(8))]
)
def test_frames_and_audio_stay_together_after_a_jump_of_the_clock(tmp_path, starts):
    parts = [
        recording(tmp_path / f"{i}.ts", first=2048 * i, start=start, frequency=440 * (i + 1))
        for i, start in enumerate(starts)
    ]
    path = joined(tmp_path / "both.ts", parts)
    target, summary = run(path, tmp_path, localizer=make_localizer(calibration=never(), miss_rate=1.0))
    assert summary.frames == 150
    pictures, times, _, _ = decode(target)
    with av.open(str(target)) as container:
        heard = {round(float(f.time), 3): f.to_ndarray().mean(axis=0) for f in container.decode(audio=0)}
    # The jump forward leaves a gap; a jump back continues the clock.
    second = 8 if starts[1] > starts[0] else 3
    for offset, frequency, first in ((0, 440, 0), (second, 880, 2048)):
        near = [wave for time, wave in sorted(heard.items()) if 0.5 < time - offset < 2.5]
        assert frequency_of(np.concatenate(near), 48_000) == pytest.approx(frequency, abs=5)
        shown = [number_of(p) & 2048 for p, time in zip(pictures, times, strict=True) if 0.1 < time - offset < 2.9]
        assert len(shown) == pytest.approx(70, abs=2)
        assert set(shown) == {first}
