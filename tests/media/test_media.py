"""Decoding of frames and audio from files with known content, and clear errors for unusable files."""

import os
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.common.errors import MediaError
from pipeline.media import video as media_video
from pipeline.media.clip import decode_clip, read_audio, read_frame
from tests.support.media_files import (
    claim_duration,
    impulses,
    mark_keyframes,
    number_of,
    numbered_frame,
    steady,
    truncate,
    write_media,
)

CLIP = {"image_size": 48, "sample_rate": 16_000, "clip_seconds": 1.0, "time_limit_s": 60.0}


def shown(path, centre_s=None):
    return number_of(read_frame(path, centre_s=centre_s, image_size=48))


def clip(path, centre_s=None, **changes):
    return decode_clip(video=path, frame=None, audio=None, centre_s=centre_s, **{**CLIP, **changes})


def latest(times, timestamp):
    """The index of the last frame that is not after the timestamp."""
    return max(i for i, time in enumerate(times) if time <= Fraction(timestamp) + Fraction(1, 10**6))


OPEN_GOP = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=3:b-adapt=0"}
STREAMS = {
    "mp4, short GOP": (".mp4", {"gop": 12}),
    "mp4, B-frames, one GOP": (".mp4", {"gop": 250, "bframes": 3}),
    "mp4, open GOP": (".mp4", {"video_options": OPEN_GOP, "bframes": 3}),
    "mov, every frame a keyframe": (".mov", {"gop": 1}),
    "mkv, B-frames": (".mkv", {"gop": 30, "bframes": 2}),
    "webm": (".webm", {"video_codec": "libvpx", "gop": 40}),
    "avi": (".avi", {"video_codec": "mpeg4", "gop": 15}),
    "fragmented": (".mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "bframes": 2}),
    "transport stream, starts at 1.4 s": (".ts", {"gop": 20, "bframes": 2}),
    # Several frames share a time stamp of the container.
    "program stream": (".mpg", {"video_codec": "mpeg2video", "video_options": {"b": "100k"}, "gop": 12}),
}


@pytest.mark.parametrize("name", STREAMS)
def test_frame_is_the_last_one_not_after_the_timestamp(tmp_path, name):
    suffix, options = STREAMS[name]
    times = steady(3, 25)
    path = write_media(tmp_path / f"clip{suffix}", times=times, **options)
    for timestamp in (0.0, 0.039, 0.04, 0.5, 1.19, 1.2, 1.63, 2.36, 2.96, 3.0):
        assert shown(path, timestamp) == latest(times, timestamp), timestamp
    assert shown(path) == 37


@pytest.mark.parametrize("gop", [5, 250])
def test_frame_at_a_variable_rate_with_long_gaps(tmp_path, gop):
    """Gaps are longer than the span that is decoded without skipping; the wanted frame may be a non-reference frame."""
    generator = np.random.default_rng(3)
    steps = generator.choice([1, 2, 3, 40, 100, 150], size=40)
    times = [Fraction(int(t), 100) for t in np.concatenate([[0], np.cumsum(steps)])]
    options = {"x264-params": f"keyint={gop}:scenecut=0:bframes=3:b-adapt=0"}
    path = write_media(tmp_path / "clip.mp4", times=times, bframes=3, video_options=options)
    for time in times[::3]:
        assert shown(path, float(time)) == latest(times, time)
        assert shown(path, float(time) + 0.005) == latest(times, time)
    for before, after in zip(times[4::5], times[5::5], strict=False):
        assert shown(path, float(after) - 0.005) == latest(times, before)


def test_false_keyframes_are_detected(tmp_path):
    """The frames differ by a few blocks, so decoding from a false keyframe would show another number."""
    path = mark_keyframes(write_media(tmp_path / "clip.mp4", times=steady(4, 25), video_codec="mpeg4", gop=30))
    with av.open(str(path)) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    for number in (0, 12, 29, 30, 31, 77, 99):
        assert shown(path, number / 25) == number


def test_a_decoder_that_outputs_frames_out_of_order(tmp_path, monkeypatch):
    """If a later frame is output first, decoding continues until the wanted one appears."""
    path = write_media(tmp_path / "clip.mp4", times=steady(1, 25), gop=250)
    decoded, held = media_video._decoded, []

    def late(media, packet):
        frames = [*held, *decoded(media, packet)]
        held[:] = frames[:1] if len(held) == 0 and packet is not None and len(frames) == 1 else []
        return frames[len(held) :][::-1]

    monkeypatch.setattr(media_video, "_decoded", late)
    assert [shown(path, number / 25) for number in (4, 7, 10, 11)] == [4, 7, 10, 11]


def test_decimal_seconds_select_frames_at_30_fps(tmp_path):
    path = write_media(tmp_path / "clip.mp4", times=steady(1, 30))
    assert [shown(path, timestamp) for timestamp in (0.033333, 0.1, 0.7, 0.0333)] == [1, 3, 21, 0]


def naive_frame(path, timestamp, size):
    """Decode everything and keep the last frame that is not after the timestamp."""
    with av.open(str(path)) as container:
        frames = [f for f in container.decode(video=0) if f.pts * f.time_base <= timestamp]
    last = max(frames, key=lambda f: f.pts)
    return np.asarray(last.to_image().resize((size, size), Image.Resampling.BILINEAR)), last.pict_type


def test_skipping_frames_changes_no_byte(tmp_path):
    """Moving noise makes every residual matter; the selected frames include P- and B-frames."""
    generator = np.random.default_rng(0)
    base = generator.integers(0, 255, (96, 128, 3), dtype=np.uint8)
    moving = [np.roll(base, 3 * i, axis=1) // 2 + numbered_frame(i) // 2 for i in range(90)]
    options = {"x264-params": "keyint=250:scenecut=0:bframes=3:b-pyramid=normal:b-adapt=0", "crf": "23"}
    path = write_media(tmp_path / "clip.mp4", times=steady(3.6, 25), frames=moving, bframes=3, video_options=options)
    types = set()
    for number in range(60, 80):
        expected, kind = naive_frame(path, Fraction(number, 25), 48)
        types.add(int(kind))
        assert np.array_equal(read_frame(path, centre_s=number / 25, image_size=48), expected), number
    assert {2, 3} <= types


def test_the_whole_frame_is_squashed_and_antialiased(tmp_path):
    """A checkerboard finer than the frame's pixels becomes gray; no row or column is cropped."""
    board = np.indices((400, 600)).sum(axis=0) % 2 * 255
    board[:200, :300] = 255
    Image.fromarray(np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)).save(tmp_path / "board.png")
    frame = read_frame(tmp_path / "board.png", image_size=20)
    assert frame.shape == (20, 20, 3)
    assert frame.dtype == np.uint8
    assert (frame[:9, :9] == 255).all()
    assert np.abs(frame[11:].astype(int) - 127).max() <= 4


CORNERS = {
    # Where the white (top left) and red (top right) corners of the stored frame are displayed.
    (0, False): ((0, 0), (0, -1)),
    (90, False): ((-1, 0), (0, 0)),
    (180, False): ((-1, -1), (-1, 0)),
    (-90, False): ((0, -1), (-1, -1)),
    (0, True): ((0, -1), (0, 0)),
    (180, True): ((-1, 0), (-1, -1)),
}


@pytest.mark.parametrize(("rotation", "mirrored"), CORNERS)
def test_display_matrix_is_applied(tmp_path, rotation, mirrored):
    """Degrees are counterclockwise; the mirror swaps left and right afterward."""
    stored = np.zeros((96, 128, 3), dtype=np.uint8)
    stored[:32, :32] = 255
    stored[:32, 96:, 0] = 255
    path = write_media(
        tmp_path / "clip.mp4", times=steady(0.4, 25), frames=[stored] * 10, rotation=rotation, mirrored=mirrored
    )
    frame = read_frame(path, image_size=48)
    white, red = CORNERS[rotation, mirrored]
    assert frame[white].min() > 200
    assert frame[red][0] > 200
    assert frame[red][1] < 60


def test_middle_of_the_media(tmp_path):
    path = write_media(tmp_path / "clip.mp4", times=steady(4, 25), sound=impulses(4, 16_000, [2.0]), gop=30)
    decoded = clip(path)
    assert decoded.source_time_s == pytest.approx(2.0, abs=1e-6)
    assert number_of(decoded.frame) == 50
    assert decoded.frame.shape == (48, 48, 3)
    assert np.abs(np.abs(decoded.waveform).argmax() - 8000) <= 1


@pytest.mark.parametrize("claimed", [2.0, 6.0, 160.0])
def test_a_wrong_duration_is_detected(tmp_path, claimed):
    path = write_media(tmp_path / "clip.mkv", times=steady(4, 25), sound=impulses(4, 16_000, [2.0]))
    claim_duration(path, claimed)
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(claimed * 1e6)
    decoded = clip(path)
    # The packets end with the last, padded audio block, up to 64 ms after the last frame.
    assert decoded.source_time_s == pytest.approx(2.0, abs=0.04)
    assert number_of(decoded.frame) in (50, 51)
    with pytest.raises(MediaError, match=r"clip.mkv: centre_s 10 .*4\.0"):
        clip(path, 10)


def test_a_missing_duration(tmp_path):
    path = write_media(tmp_path / "clip.mkv", times=steady(4, 25), container_options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    assert shown(path) in (49, 50)


def test_truncated_with_its_index_in_front(tmp_path):
    """The readable part is used: its middle is selected, deterministically."""
    path = write_media(
        tmp_path / "clip.mp4",
        times=steady(8, 25),
        sound=impulses(8, 16_000, np.arange(0.25, 8, 0.25)),
        container_options={"movflags": "faststart"},
    )
    truncate(path, 0.5)
    first, second = clip(path), clip(path)
    assert 1.0 < first.source_time_s < 3.0
    assert number_of(first.frame) == int(first.source_time_s * 25)
    assert first.source_time_s == second.source_time_s
    assert np.array_equal(first.waveform, second.waveform)


def test_truncated_with_its_index_at_the_end(tmp_path):
    path = truncate(write_media(tmp_path / "clip.mp4", times=steady(2, 25)), 0.7)
    with pytest.raises(MediaError, match=r"clip.mp4: cannot be read"):
        clip(path)


def test_time_zero_is_the_earliest_start(tmp_path):
    """Audio starts half a second after the video, in a stream whose clock starts at 1.4 s."""
    sound = impulses(3, 16_000, [1.0])
    for suffix in (".ts", ".mkv"):
        path = write_media(
            tmp_path / f"clip{suffix}",
            times=steady(4, 25),
            sound=sound,
            sound_start=0.5,
            audio_codec="mp2" if suffix == ".ts" else "pcm_s16le",
        )
        decoded = clip(path, 1.5)
        assert number_of(decoded.frame) == 37
        assert abs(int(np.abs(decoded.waveform).argmax()) - 8000) <= (600 if suffix == ".ts" else 16)


def test_a_timestamp_before_the_first_frame_selects_the_first(tmp_path):
    sound = impulses(4, 16_000, [0.1, 2.0])
    early = write_media(tmp_path / "early.mkv", times=[t + Fraction(1, 5) for t in steady(3, 25)], sound=sound)
    assert number_of(clip(early, 0.05).frame) == 0
    late = write_media(tmp_path / "late.mkv", times=[t + 2 for t in steady(1, 25)], sound=sound)
    with pytest.raises(MediaError, match=r"late.mkv: no frame .* 0.050 s"):
        clip(late, 0.05)


@pytest.mark.parametrize("timestamp", [0.0, 0.3, 1.0, 2.0 + 1 / 3, 4.9])
def test_wav_at_its_own_rate_is_exact_to_the_sample(tmp_path, timestamp):
    """Independent reference: slice the samples that were written."""
    rate, seconds = 16_000, 5
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, (1, rate * seconds)).astype(np.float32)
    path = write_media(tmp_path / "sound.wav", sound=sound, rate=rate, audio_codec="pcm_s16le")
    wave = read_audio(path, centre_s=timestamp, clip_seconds=1.0, sample_rate=rate)
    assert wave.shape == (rate,)
    assert wave.dtype == np.float32
    padded = np.concatenate([np.zeros(rate), sound[0], np.zeros(rate)])
    start = round(timestamp * rate - rate / 2) + rate
    expected = padded[start : start + rate]
    np.testing.assert_allclose(wave, expected / np.abs(expected).max(), atol=1e-4)
    assert np.abs(wave).max() == 1.0


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".wav", "pcm_s16le"), (".mp4", "aac"), (".mkv", "aac"), (".flac", "flac")]
)
@pytest.mark.parametrize(
    ("rate", "sample_rate"), [(44_100, 22_050), (48_000, 16_000), (8_000, 16_000), (22_050, 22_050)]
)
def test_an_impulse_lands_where_it_was(tmp_path, suffix, codec, rate, sample_rate):
    """Long enough to require seeking; Matroska timestamps are rounded to a millisecond."""
    path = write_media(tmp_path / f"sound{suffix}", sound=impulses(20, rate, [3.0, 12.5]), rate=rate, audio_codec=codec)
    tolerance = sample_rate // 1000 if suffix == ".mkv" else 1
    for time, center in ((3.0, 3.25), (12.5, 12.25)):
        wave = read_audio(path, centre_s=center, clip_seconds=2.0, sample_rate=sample_rate)
        assert wave.shape == (2 * sample_rate,)
        expected = round((time - center + 1.0) * sample_rate)
        assert abs(int(np.abs(wave).argmax()) - expected) <= tolerance


@pytest.mark.parametrize(
    ("rate", "seconds", "length"), [(22_050, 5.0, 110_250), (16_000, 1.0, 16_000), (16_000, 0.33333, 5333)]
)
def test_length_is_exact(tmp_path, rate, seconds, length):
    path = write_media(tmp_path / "clip.mp4", sound=impulses(6, 44_100, [3.0]), rate=44_100)
    assert read_audio(path, clip_seconds=seconds, sample_rate=rate).shape == (length,)


def test_audio_after_a_seek_equals_full_decoding(tmp_path):
    """Codecs with memory have settled when the window starts. Independent reference: decode everything and slice."""
    rate, time = 22_050, np.arange(20 * 22_050) / 22_050
    chord = sum(0.2 * np.sin(2 * np.pi * f * time) for f in (220, 554, 1318)).astype(np.float32)[None]
    for codec in ("aac", "libmp3lame"):
        path = write_media(tmp_path / f"{codec}.mp4", sound=chord, rate=rate, audio_codec=codec)
        with av.open(str(path)) as container:
            frames = list(container.decode(audio=0))
        begin = round(frames[0].pts * frames[0].time_base * rate)
        whole = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        wave = read_audio(path, centre_s=12.0, clip_seconds=2.0, sample_rate=rate)
        expected = whole[11 * rate - begin : 13 * rate - begin]
        np.testing.assert_allclose(wave, expected / np.abs(expected).max(), atol=1e-4)


def test_a_gap_in_the_audio_is_silence(tmp_path):
    path = write_media(
        tmp_path / "sound.mkv",
        sound=np.full((1, 64_000), 0.5, np.float32),
        audio_codec="pcm_s16le",
        sound_gap=(2.0, 0.5),
    )
    wave = read_audio(path, centre_s=2.25, clip_seconds=2.0, sample_rate=16_000)
    (silent,) = np.nonzero(wave == 0)
    assert len(silent) == pytest.approx(8000, abs=32)
    assert silent[-1] - silent[0] + 1 == len(silent)
    # The gap starts at the first block of 1,024 samples after two seconds.
    assert silent[0] == pytest.approx(32 * 1024 - (2.25 - 1.0) * 16_000, abs=32)


def test_channels_are_averaged(tmp_path):
    sound = impulses(2, 16_000, [0.5], channels=2)
    sound[1, 8000] = 0.3
    sound[:, 24_000] = [[0.4], [-0.4]][0][0], [[0.4], [-0.4]][1][0]
    path = write_media(tmp_path / "sound.wav", sound=sound, audio_codec="pcm_s16le")
    wave = read_audio(path, centre_s=1.0, clip_seconds=2.0, sample_rate=16_000)
    assert wave[8000] == 1.0
    assert abs(wave[24_000]) < 1e-4


def test_media_shorter_than_the_window_is_padded(tmp_path):
    path = write_media(tmp_path / "sound.wav", sound=np.full((1, 8000), 0.5, np.float32), audio_codec="pcm_s16le")
    wave = read_audio(path, clip_seconds=2.0, sample_rate=16_000)
    assert wave.shape == (32_000,)
    np.testing.assert_array_equal(np.flatnonzero(wave), np.arange(12_000, 20_000))


def test_digital_silence_is_refused(tmp_path):
    path = write_media(tmp_path / "clip.mp4", times=steady(4, 25), sound=impulses(4, 16_000, [3.0]), bframes=1)
    assert clip(path, 3.0).waveform.max() > 0
    with pytest.raises(MediaError, match=r"clip.mp4: digital silence .*0.500 to 1.500 s"):
        clip(path, 1.0)


def test_audio_that_ends_before_the_window(tmp_path):
    path = write_media(tmp_path / "clip.mkv", times=steady(6, 25), sound=impulses(1, 16_000, [0.5]))
    with pytest.raises(MediaError, match=r"clip.mkv: no audio .*4.500 to 5.500 s"):
        clip(path, 5.0)


def test_image_file_and_audio_file(tmp_path):
    Image.fromarray(numbered_frame(1234)).save(tmp_path / "still.png")
    write_media(tmp_path / "sound.wav", sound=impulses(3, 16_000, [1.5]), audio_codec="pcm_s16le")
    both = {"video": None, "frame": tmp_path / "still.png", "audio": tmp_path / "sound.wav"}
    decoded = decode_clip(**both, centre_s=None, **CLIP)
    assert number_of(decoded.frame) == 1234
    assert decoded.waveform.argmax() == 8000
    assert decoded.source_time_s == 1.5
    assert decode_clip(**both, centre_s=1.25, **CLIP).waveform.argmax() == 12_000
    # The extension is irrelevant; the type is detected from the content.
    (tmp_path / "still.png").rename(tmp_path / "still.mp4")
    (tmp_path / "sound.wav").rename(tmp_path / "sound.jpg")
    swapped = decode_clip(video=None, frame=tmp_path / "still.mp4", audio=tmp_path / "sound.jpg", centre_s=None, **CLIP)
    assert np.array_equal(swapped.frame, decoded.frame)
    assert np.array_equal(swapped.waveform, decoded.waveform)
    with pytest.raises(ValueError, match="frame and an audio file"):
        decode_clip(video=None, frame=tmp_path / "still.mp4", audio=None, centre_s=None, **CLIP)


def no_file(path):
    return path


def empty(path):
    path.touch()
    return path


def folder(path):
    path.mkdir()
    return path


def pipe(path):
    os.mkfifo(path)
    return path


def text(path):
    path.write_text("not media at all\n" * 100)
    return path


def playlist(path):
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/clip.ts\n#EXT-X-ENDLIST\n")
    return path


def no_audio(path):
    return write_media(path, times=steady(1, 25))


def no_video(path):
    return write_media(path, sound=impulses(1, 16_000, [0.5]))


def cover_only(path):
    """Sound with a cover picture, as in a music file."""
    with av.open(str(path), "w", format="mp4") as container:
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 128, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_frame(7), format="rgb24")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(impulses(1, 16_000, [0.5]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        for piece in av.AudioResampler("fltp", "mono", 16_000, frame_size=1024).resample(frame):
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
    return path


def encrypted(path):
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "00112233445566778899aabbccddeeff",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    return write_media(path, times=steady(1, 25), sound=impulses(1, 16_000, [0.5]), container_options=options)


BAD_FILES = {
    no_file: "no such file",
    empty: "is empty",
    folder: "is a folder",
    pipe: "not a regular file",
    text: r"cannot be read",
    playlist: r"is a playlist \(HLS\)",
    no_audio: r"no .*audio stream",
    no_video: r"no .*video stream",
    cover_only: r"no .*video stream",
    encrypted: "is encrypted",
}


@pytest.mark.parametrize("make", BAD_FILES, ids=lambda make: make.__name__)
def test_a_bad_file_raises_a_one_line_error_and_prints_nothing(tmp_path, capfd, make):
    path = make(tmp_path / "clip.mp4")
    with pytest.raises(MediaError, match=BAD_FILES[make]) as caught:
        clip(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


def test_bad_image_files(tmp_path):
    path = tmp_path / "still.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(path)
    truncate(path, 0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MediaError, match=r"still.jpg: .*damaged"):
            read_frame(path, image_size=48)
        for side in (11_000, 14_000):
            Image.new("1", (side, side)).save(tmp_path / "huge.png")
            with pytest.raises(MediaError, match=r"huge.png: .*100 megapixels"):
                read_frame(tmp_path / "huge.png", image_size=48)


def test_a_stream_without_timestamps(tmp_path):
    path = write_media(tmp_path / "clip.h264", times=steady(1, 25), container_format="h264")
    with pytest.raises(MediaError, match=r"clip.h264: .*timestamps.*ffmpeg -i IN -c copy OUT.mp4"):
        read_frame(path, image_size=48)


def test_damage_in_the_middle(tmp_path, capfd):
    """A clip in the damaged part is rejected; frames before and well after the damage are unaffected."""
    times = steady(9, 25)
    path = write_media(tmp_path / "clip.mkv", times=times, gop=75, video_codec="mpeg4")
    with av.open(str(path)) as container:
        spans = [
            (p.pos, p.size) for p in container.demux(video=0) if p.size and 70 < (p.pts or 0) * p.time_base * 25 < 150
        ]
    data = bytearray(path.read_bytes())
    for position, size in spans:
        data[position + 4 : position + size] = bytes(size - 4)
    path.write_bytes(bytes(data))
    assert shown(path, 1.0) == 25
    assert shown(path, 8.0) == 200
    with pytest.raises(MediaError, match=r"clip.mkv: .* at 5.000 s.*damaged"):
        shown(path, 5.0)
    assert capfd.readouterr() == ("", "")


def test_time_limit(tmp_path):
    path = write_media(tmp_path / "clip.mp4", times=steady(2, 25), sound=impulses(2, 16_000, [1.0]))
    with pytest.raises(MediaError, match=r"clip.mp4: .*1e-09 s.*extract.clip_time_limit_s"):
        clip(path, time_limit_s=1e-9)


@pytest.mark.parametrize("centre_s", [-0.1, 3.0, float("nan"), float("inf")])
def test_a_center_time_outside_the_media(tmp_path, centre_s):
    path = write_media(tmp_path / "clip.mp4", times=steady(2, 25), sound=impulses(2, 16_000, [1.0]))
    with pytest.raises(MediaError, match=rf"clip.mp4: centre_s {centre_s:g} .*2\.\d+ s"):
        clip(path, centre_s)
