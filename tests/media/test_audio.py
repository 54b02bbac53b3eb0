"""Audio windows of tracks with odd time stamps, channels, tracks and programs: extraction and `localize` hear the same."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.apps.localize.sliding_windows import SlidingWindows
from pipeline.common.errors import MediaError
from pipeline.media import audio
from pipeline.media.audio import window_at
from pipeline.media.audio_blocks import audio_blocks
from pipeline.media.clip import decode_clip, read_audio
from pipeline.media.container import Deadline, MediaContainer
from pipeline.media.video import decoded_frames, frame_time
from tests.support.media_files import impulses, number_of, steady, write_media
from tests.support.odd_media import (
    frequency_of,
    joined,
    pcm_with_stamps,
    recording,
    tone,
    two_programs,
    two_tracks,
)

RATE = 16_000


def noise(seconds, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, round(seconds * RATE))).astype("f4")


def heard(path, center, clip_seconds=1.0, rate=RATE):
    """Return the windows of extraction and of `localize`, both with a peak of 1."""
    with MediaContainer(path, deadline=Deadline(60)) as one, MediaContainer(path, deadline=Deadline(60)) as other:
        timestamp = one.timestamp(center)
        extracted = window_at(one, timestamp, clip_seconds=clip_seconds, sample_rate=rate)
        other.track = one.track
        slid = SlidingWindows(other, clip_seconds=clip_seconds, sample_rate=rate).window(timestamp)
    return extracted, slid / np.abs(slid).max()


def expected_at(sound, center, clip_seconds=1.0):
    padded = np.pad(sound, RATE)
    begin = round((center - clip_seconds / 2) * RATE) + RATE
    part = padded[begin : begin + round(clip_seconds * RATE)]
    return part / np.abs(part).max()


random_delays = np.random.default_rng(1).uniform(-0.02, 0.02, 10_000)
STAMPS = {
    "jitter of 20 ms": lambda i: random_delays[i] if i else 0.0,
    "counted in 40 ms": lambda i: -(i * 1024 / RATE % 0.04),
    "the first is early by 35 ms": lambda i: 0.035 if i else 0.0,
    "a step back of 60 ms": lambda i: -0.06 if i > 60 else 0.0,
    "a gap of 90 ms": lambda i: 0.09 if i > 20 else 0.0,
}


@pytest.mark.parametrize("name", STAMPS)
def test_samples_are_contiguous_whatever_the_stamps_say(tmp_path, name):
    sound = noise(8)
    path = pcm_with_stamps(tmp_path / "a.mkv", sound, RATE, STAMPS[name])
    for center in (0.3, 2.0, 3.97, 5.0, 7.2):
        for window in heard(path, center):
            np.testing.assert_allclose(window, expected_at(sound[0], center), atol=1e-3, err_msg=f"at {center} s")


@pytest.mark.parametrize("jump_s", [0.15, 2.0])
def test_a_real_gap_is_silent_and_later_samples_are_in_place(tmp_path, jump_s):
    sound = noise(6)
    path = pcm_with_stamps(tmp_path / "a.mkv", sound, RATE, lambda i: jump_s if i >= 47 else 0.0)
    split = 47 * 1024
    whole = np.concatenate([sound[0, :split], np.zeros(round(jump_s * RATE), "f4"), sound[0, split:]])
    for center in (1.0, 3.0, 3.4, 5.0):
        for window in heard(path, center):
            np.testing.assert_allclose(window, expected_at(whole, center), atol=1e-3)


def test_a_slow_drift_is_corrected_after_a_tenth_of_a_second(tmp_path):
    """The stamps run 2% fast; at any time the window lags behind them by at most 100 ms and one block."""
    sound = np.zeros((1, 20 * RATE), "f4")
    sound[:, ::RATE] = 0.9
    path = pcm_with_stamps(tmp_path / "a.mkv", sound, RATE, lambda i: 0.02 * i * 1024 / RATE)
    for second in (3, 10, 17):
        stamped = 1.02 * second
        for window in heard(path, stamped):
            late_s = (int(window.argmax()) - RATE / 2) / RATE
            assert -0.165 <= late_s <= 0.002


@pytest.mark.parametrize("name", ["counted in 40 ms", "a step back of 60 ms"])
def test_minutes_into_a_file_samples_are_still_counted(tmp_path, name):
    sound = noise(50)
    path = pcm_with_stamps(tmp_path / "a.mkv", sound, RATE, STAMPS[name])
    for window in heard(path, 45.0):
        np.testing.assert_allclose(window, expected_at(sound[0], 45.0), atol=1e-3)


def test_windows_far_into_a_file_are_placed_by_the_median_stamp(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_COUNTED", Fraction(30))
    sound = noise(50)
    path = pcm_with_stamps(tmp_path / "a.mkv", sound, RATE, STAMPS["jitter of 20 ms"])
    extracted, slid = heard(path, 45.0, clip_seconds=2.0)
    np.testing.assert_allclose(slid, expected_at(sound[0], 45.0, 2.0), atol=1e-3)
    lags = range(-160, 161)
    matches = [float(np.roll(extracted, lag) @ slid) for lag in lags]
    assert max(matches) > 0.99 * float(slid @ slid)
    assert abs(lags[int(np.argmax(matches))]) < 0.01 * RATE


def test_the_channels_change_midway(tmp_path):
    parts = [
        recording(tmp_path / "a.ts", first=0, start=Fraction(0), frequency=440, channels=2),
        recording(tmp_path / "b.ts", first=1000, start=Fraction(3), frequency=880, channels=1),
    ]
    path = joined(tmp_path / "both.ts", parts)
    for center, frequency in ((1.0, 440), (2.4, 440), (3.7, 880), (5.0, 880)):
        for window in heard(path, center):
            assert frequency_of(window, RATE) == pytest.approx(frequency, abs=2)
    # Half of the window before the change and half after it: neither has a hole.
    for window in heard(path, 3.0):
        assert np.abs(window).reshape(100, -1).max(axis=1).min() > 0.5


def test_the_sample_rate_changes_midway(tmp_path):
    parts = [
        recording(tmp_path / "a.ts", first=0, start=Fraction(0), frequency=440, rate=48_000),
        recording(tmp_path / "b.ts", first=1000, start=Fraction(3), frequency=880, rate=32_000),
    ]
    path = joined(tmp_path / "both.ts", parts)
    for center, frequency in ((1.0, 440), (2.3, 440), (3.8, 880), (5.0, 880)):
        for window in heard(path, center):
            assert frequency_of(window, RATE) == pytest.approx(frequency, abs=2)


@pytest.mark.parametrize(("frequency", "amplitude", "rate"), [(880, 0.1, 44_100), (1000, 0.3, 48_000)])
def test_a_false_frame_header_after_a_seek(tmp_path, frequency, amplitude, rate):
    """These tones encode to frames that contain patterns like headers of other sample rates."""
    sound = tone(frequency, 4, rate) * np.float32(amplitude / 0.3)
    path = write_media(
        tmp_path / "a.mpg", times=steady(4, 25), video_codec="mpeg2video", sound=sound, rate=rate, audio_codec="mp2"
    )
    for center in np.arange(0.6, 3.4, 0.05):
        window = read_audio(path, centre_s=float(center), clip_seconds=0.2, sample_rate=rate)
        assert frequency_of(window, rate) == pytest.approx(frequency, abs=3)
        assert np.abs(window).reshape(20, -1).max(axis=1).min() > 0.9


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac"])
def test_a_mean_that_cancels_out_is_replaced_by_a_channel(tmp_path, codec):
    one = tone(440, 3, RATE)[0]
    path = write_media(tmp_path / "a.mkv", sound=np.stack([one, -one]), audio_codec=codec)
    for window in heard(path, 1.5):
        assert frequency_of(window, RATE) == 440
        assert np.sqrt(np.mean(window**2)) == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_only_audio_within_the_window_decides_whether_the_mean_cancels_out(tmp_path):
    """In phase again right after the window; both channels are equally loud, so the first one is used."""
    one = tone(440, 4, RATE)[0]
    other = np.where(np.arange(len(one)) < 2 * RATE, -one, one)
    path = write_media(tmp_path / "a.mkv", sound=np.stack([one, other * np.float32(1.01)]), audio_codec="pcm_s16le")
    for window in heard(path, 1.45):
        np.testing.assert_allclose(window, expected_at(one, 1.45), atol=2e-3)


def test_six_channels_that_cancel_out_and_one_that_does_not(tmp_path):
    silent, one = np.zeros(3 * RATE, "f4"), tone(440, 3, RATE)[0]
    path, single = tmp_path / "a.wav", tmp_path / "b.wav"
    for file, sounding in ((path, [one, -one, silent]), (single, [silent, silent, one])):
        with wave.open(str(file), "wb") as out:
            out.setparams((6, 2, RATE, 0, "NONE", ""))
            out.writeframes(np.round(np.stack([*sounding, *[silent] * 3]).T * 32767).astype("<i2").tobytes())
    for window in (*heard(path, 1.5), *heard(single, 1.5)):
        assert frequency_of(window, RATE) == 440
    # The level shows that the mean was used: a sixth of the only channel.
    with MediaContainer(single, deadline=Deadline(60)) as media:
        level = np.abs(SlidingWindows(media, clip_seconds=1.0, sample_rate=RATE).window(Fraction(3, 2))).max()
    assert level == pytest.approx(0.3 / 6, abs=1e-3)


def test_stereo_that_only_partly_cancels_out_is_averaged(tmp_path):
    one, other = tone(440, 3, RATE)[0], tone(880, 3, RATE)[0]
    path = write_media(tmp_path / "a.wav", sound=np.stack([one + other, other - one]), audio_codec="pcm_s16le")
    for window in heard(path, 1.5):
        assert frequency_of(window, RATE) == 880


def test_the_first_track_that_sounds_is_used(tmp_path):
    silent, faint = np.zeros((1, 3 * RATE), "f4"), noise(3) * 1e-4
    for number, quiet in enumerate((silent, faint)):
        path = two_tracks(tmp_path / f"{number}.mkv", quiet, tone(880, 3, RATE), RATE)
        assert frequency_of(read_audio(path, centre_s=1.5, clip_seconds=1.0, sample_rate=RATE), RATE) == 880
    path = two_tracks(tmp_path / "both.mkv", tone(440, 3, RATE), tone(880, 3, RATE), RATE)
    assert frequency_of(read_audio(path, centre_s=1.5, clip_seconds=1.0, sample_rate=RATE), RATE) == 440
    # A track that sounds anywhere is kept, although it is silent in this window.
    late = np.concatenate([np.zeros((1, 2 * RATE), "f4"), tone(440, 1, RATE)], axis=1)
    path = two_tracks(tmp_path / "late.mkv", late, tone(880, 3, RATE), RATE)
    with pytest.raises(MediaError, match=r"late\.mkv: digital silence"):
        read_audio(path, centre_s=1.0, clip_seconds=1.0, sample_rate=RATE)


def test_the_audio_belongs_to_the_program_of_the_video(tmp_path):
    """One program has the better audio, of a higher bit rate, and the other one the better video."""
    programs = [
        {"first": 0, "start": Fraction(0), "frequency": 440, "audio_bit_rate": 64_000},
        {"first": 1000, "start": Fraction(0), "frequency": 880, "audio_bit_rate": 384_000},
    ]
    for order in (programs, programs[::-1]):
        path = two_programs(tmp_path / "two.ts", tmp_path, order)
        clip = decode_clip(
            video=path, frame=None, audio=None, centre_s=1.5, image_size=48, sample_rate=RATE, clip_seconds=1.0,
            time_limit_s=60,
        )  # fmt: skip
        assert frequency_of(clip.waveform, RATE) == pytest.approx(440 if number_of(clip.frame) < 1000 else 880, abs=2)


JOINED = {
    "back by ten seconds": (Fraction(10), Fraction(0)),
    "the same clock twice": (Fraction(0), Fraction(0)),
    "forward, then back": (Fraction(0), Fraction(100), Fraction(0)),
}


@pytest.mark.parametrize("name", JOINED)
def test_frames_and_audio_of_joined_recordings_stay_together(tmp_path, name):
    starts = JOINED[name]
    parts = [
        recording(tmp_path / f"{i}.ts", first=1000 * i, start=start, frequency=440 * (i + 1))
        for i, start in enumerate(starts)
    ]
    path = joined(tmp_path / "all.ts", parts)
    places = [0.7, 1.5, 2.3, *(3.7, 4.5, 5.3)] if len(starts) == 2 else [0.7, 2.3, 101.0, 102.2, 103.7, 105.2]
    for i, center in enumerate(places):
        clip = decode_clip(
            video=path, frame=None, audio=None, centre_s=center, image_size=48, sample_rate=RATE, clip_seconds=0.5,
            time_limit_s=60,
        )  # fmt: skip
        part = i // (len(places) // len(starts))
        assert number_of(clip.frame) // 1000 == part, center
        assert frequency_of(clip.waveform, RATE) == pytest.approx(440 * (part + 1), abs=3), center


def test_a_small_step_back_is_found(tmp_path):
    parts = [
        recording(tmp_path / "0.ts", first=0, start=Fraction(0), frequency=440, seconds=20),
        recording(tmp_path / "1.ts", first=1000, start=Fraction("19.2"), frequency=880, seconds=4),
    ]
    path = joined(tmp_path / "all.ts", parts)
    for center, number, frequency in ((10.0, 250, 440), (19.5, 487, 440), (20.6, 1015, 880), (23.0, 1075, 880)):
        clip = decode_clip(
            video=path, frame=None, audio=None, centre_s=center, image_size=48, sample_rate=RATE, clip_seconds=0.5,
            time_limit_s=60,
        )  # fmt: skip
        # The encoder's delay is shorter than a frame.
        assert number_of(clip.frame) in (number - 1, number), center
        assert frequency_of(clip.waveform, RATE) == pytest.approx(frequency, abs=3), center


def test_audio_that_ends_before_the_video_does_not_shift_the_next_recording(tmp_path):
    """The audio of each recording is 90 ms shorter than its video, which is less than a drift that is corrected."""
    part = write_media(
        tmp_path / "part.ts", times=steady(3, 25), sound=impulses(2.91, 48_000, [1.0]), rate=48_000, audio_codec="mp2"
    )
    path = joined(tmp_path / "all.ts", [part, part, part])
    with MediaContainer(path, deadline=Deadline(60)) as media:
        starts = [frame_time(media, frame) / 90_000 for frame in decoded_frames(media)][::75]
    with MediaContainer(path, deadline=Deadline(60)) as media:
        loud = [(block, np.abs(block.channels[0])) for block in audio_blocks(media, None)]
    clicks = [block.begin_s + wave.argmax() / 48_000 for block, wave in loud if wave.max() > 0.5]
    # The delay of the encoder is the same in all recordings.
    assert np.subtract(clicks, starts) == pytest.approx([clicks[0] - starts[0]] * 3, abs=0.002)


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_joined_recordings_without_video_follow_each_other(tmp_path, suffix):
    parts = [
        write_media(tmp_path / f"{f}{suffix}", sound=tone(f, 3, 48_000), rate=48_000, audio_codec="mp2")
        for f in (440, 880)
    ]
    path = joined(tmp_path / f"both{suffix}", parts)
    for center, frequency in ((1.5, 440), (4.5, 880)):
        for window in heard(path, center):
            assert frequency_of(window, RATE) == pytest.approx(frequency, abs=2)


def test_durations_that_are_rounded_like_the_stamps_prove_nothing(tmp_path):
    """Raw AC-3 at 44.1 kHz: 3134.69 ticks a packet, rounded to 3134 in stamp and duration alike, drift by 0.2 ms a second."""
    seconds, rate = 40, 44100
    sound = np.zeros((1, seconds * rate), "f4")
    sound[:, rate // 2 :: rate] = 0.9
    path = tmp_path / "a.ac3"
    with av.open(path, "w") as container:
        stream = container.add_stream("ac3", rate=rate, layout="mono")
        for start in range(0, sound.shape[1], stream.codec_context.frame_size or 1536):
            block = av.AudioFrame.from_ndarray(sound[:, start : start + 1536], format="fltp", layout="mono")
            block.sample_rate, block.pts = rate, start
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    # 256 samples are the encoder's delay.
    for center in (10.5, 35.5):
        window = read_audio(path, centre_s=center, clip_seconds=1.0, sample_rate=rate)
        assert abs(int(np.abs(window).argmax()) - rate // 2 - 256) < 30, center
