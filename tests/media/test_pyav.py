"""Files that PyAV must not open, or on which it raises something unusual."""

import io
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.common.errors import AccessError, MediaError
from pipeline.media import pyav
from pipeline.media.clip import decode_clip, read_audio, read_frame
from pipeline.media.container import Deadline, MediaContainer
from pipeline.media.pyav import open_media, pyav_errors
from tests.support.media_files import claim_duration, impulses, steady, write_media
from tests.support.odd_media import with_stream_types

CLIP = {"image_size": 48, "sample_rate": 16_000, "clip_seconds": 0.5, "time_limit_s": 60.0}

DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S">'
    '<Period><AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>{file}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{file}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{file}'\n",
    "DASH": DASH,
    "SDP": SDP,
    "PLS": "[playlist]\nNumberOfEntries=1\nFile1={file}\n",
}


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".ts"])
@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_are_refused_by_name(tmp_path, name, suffix):
    file = write_media(tmp_path / "media.ts", times=steady(1, 25), sound=impulses(1, 16_000, [0.5]), audio_codec="mp2")
    path = tmp_path / f"list{suffix}"
    path.write_text(PLAYLISTS[name].format(file=file))
    with pytest.raises(MediaError, match=rf"list\{suffix}: .*playlist \({name}\)"):
        decode_clip(video=path, frame=None, audio=None, centre_s=0.5, **CLIP)


@pytest.mark.parametrize("name", ["HLS", "ffconcat"])
def test_formats_that_refer_to_other_files_are_not_opened(tmp_path, monkeypatch, name):
    """Even if the first bytes did not tell: FFmpeg itself may not use these formats."""
    file = write_media(tmp_path / "media.ts", sound=impulses(1, 16_000, [0.5]), audio_codec="mp2")
    path = tmp_path / "list.m3u8"
    path.write_text(PLAYLISTS[name].format(file=file.name))
    monkeypatch.setattr(pyav, "_refuse_playlists", lambda path: None)
    with pytest.raises(MediaError, match=r"list\.m3u8: cannot be read"):
        read_audio(path, clip_seconds=0.5, sample_rate=16_000)


def test_a_list_that_names_itself_ends_at_once(tmp_path):
    path = tmp_path / "a.ffconcat"
    path.write_text("ffconcat version 1.0\n" + "file 'a.ffconcat'\n" * 20)
    began = time.monotonic()
    with pytest.raises(MediaError, match=r"a\.ffconcat: .*ffconcat"):
        read_frame(path, image_size=48)
    assert time.monotonic() - began < 1


def test_a_name_that_looks_like_a_pattern_selects_no_other_file(tmp_path):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "frame001.png")
    (tmp_path / "frame%03d.png").write_bytes(b"not an image")
    with pytest.raises(MediaError, match=r"frame%03d\.png: "):
        read_frame(tmp_path / "frame%03d.png", image_size=8)


ORIENTED = {1: (0, 0), 3: (-1, -1), 6: (0, -1), 8: (-1, 0)}  # EXIF orientation: where the white corner is displayed


@pytest.mark.parametrize("orientation", ORIENTED)
def test_side_data_without_a_name_fails_nothing(tmp_path, orientation):
    """JPEG frames with EXIF, as cameras write in time lapses. PyAV has no name for this side data."""
    pixels = np.zeros((96, 128, 3), dtype=np.uint8)
    pixels[:32, :32] = 255
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    path = tmp_path / "lapse.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=2)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        for number in range(4):
            packet = av.Packet(buffer.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 2)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    with av.open(str(path)) as container:
        assert any(data.type.name.startswith("UNNAMED") for data in next(container.decode(video=0)).side_data)
    frame = read_frame(path, centre_s=0.5, image_size=48)
    assert frame[ORIENTED[orientation]].min() > 200
    assert (frame.mean(axis=2) > 128).mean() < 0.2


KEYS = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "00112233445566778899aabbccddeeff",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


READ = {
    "audio": lambda path: read_audio(path, clip_seconds=0.5, sample_rate=16_000),
    "video": lambda path: read_frame(path, image_size=48),
}


@pytest.mark.parametrize("fragmented", [False, True])
@pytest.mark.parametrize("kind", ["audio", "video"])
def test_encrypted_tracks_are_refused_by_name(tmp_path, kind, fragmented):
    options = {**KEYS, **({"movflags": "frag_keyframe+empty_moov"} if fragmented else {})}
    what = {"sound": impulses(1, 16_000, [0.5])} if kind == "audio" else {"times": steady(1, 25)}
    path = write_media(tmp_path / "drm.mp4", container_options=options, **what)
    with pytest.raises(MediaError, match=r"drm\.mp4: .*is encrypted \(DRM\)"):
        READ[kind](path)


@pytest.mark.parametrize(("kind", "types"), [("video", {0x1B: 0xDB}), ("audio", {0x0F: 0xCF})])
def test_encrypted_transport_streams(tmp_path, kind, types):
    path = write_media(tmp_path / "drm.ts", times=steady(1, 25), sound=impulses(1, 16_000, [0.5]))
    assert decode_clip(video=path, frame=None, audio=None, centre_s=0.5, **CLIP).waveform.max() == 1
    with_stream_types(path, types)
    with pytest.raises(MediaError, match=rf"drm\.ts: its {kind} is encrypted"):
        decode_clip(video=path, frame=None, audio=None, centre_s=0.5, **CLIP)


def _element(name, content):
    return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def test_an_encrypted_matroska_track(tmp_path):
    """Matroska elements: one track whose ContentEncryption names a key."""
    encryption = _element("5035", _element("47e1", b"\x05") + _element("47e2", b"0123456789abcdef"))
    encodings = _element("6d80", _element("6240", _element("5031", b"\0") + _element("5033", b"\1") + encryption))
    audio = _element("e1", _element("b5", b"\x45\xfa\x00\x00") + _element("9f", b"\1") + _element("6264", b"\x10"))
    entry = _element("d7", b"\1") + _element("73c5", b"\1") + _element("83", b"\2") + _element("86", b"A_PCM/INT/LIT")
    blocks = b"".join(_element("a3", b"\x81" + (10 * i).to_bytes(2, "big") + b"\x80" + bytes(160)) for i in range(50))
    segment = _element("1549a966", _element("2ad7b1", b"\x0f\x42\x40")) + _element(
        "1654ae6b", _element("ae", entry + audio + encodings)
    )
    path = tmp_path / "drm.mkv"
    path.write_bytes(
        _element("1a45dfa3", _element("4282", b"matroska") + _element("4285", b"\2"))
        + _element("18538067", segment + _element("1f43b675", _element("e7", b"\0") + blocks))
    )
    with pytest.raises(MediaError, match=r"drm\.mkv: its audio is encrypted"):
        read_audio(path, clip_seconds=0.5, sample_rate=16_000)


def test_absurd_time_stamps(tmp_path):
    """A Matroska cluster at 2^62 ms."""
    path = write_media(tmp_path / "a.mkv", times=steady(1, 25), sound=impulses(1, 16_000, [0.5]))
    data = path.read_bytes()
    cluster = data.index(bytes.fromhex("1f43b675"))
    stamp = data.index(b"\xe7", cluster)
    size = data[stamp + 1] & 0x7F
    absurd = b"\xe7\x88" + (1 << 62).to_bytes(8, "big")
    # The cluster's own size becomes unknown, so that nothing else has to move.
    header = bytes.fromhex("1f43b675") + b"\x01" + b"\xff" * 7
    path.write_bytes(data[:cluster] + header + absurd + data[stamp + 2 + size :])
    for center in (None, 0.5):
        with pytest.raises(MediaError, match=r"a\.mkv: "):
            decode_clip(video=path, frame=None, audio=None, centre_s=center, **CLIP)


def test_a_duration_beyond_64_bits(tmp_path):
    """Matroska counts in nanoseconds here, and the header claims 300,000 years."""
    path = write_media(tmp_path / "a.mkv", times=steady(1, 25), sound=impulses(1, 16_000, [0.5]))
    data = path.read_bytes()
    scale = bytes.fromhex("2ad7b183")
    assert data.count(scale + b"\x0f\x42\x40") == 1
    path.write_bytes(data.replace(scale + b"\x0f\x42\x40", scale + b"\0\0\1"))
    claim_duration(path, 9.0e18)
    with pytest.raises(MediaError, match=r"a\.mkv: centre_s 5 is outside"):
        decode_clip(video=path, frame=None, audio=None, centre_s=5, **CLIP)


class _LateStream:
    """A container whose demuxer ends as PyAV's does if a stream has appeared after opening."""

    def __init__(self, container):
        self._container = container

    def __getattr__(self, name):
        return getattr(self._container, name)

    def demux(self, *streams):
        yield from self._container.demux(*streams)
        raise IndexError("list index out of range")


def test_a_stream_that_appears_late_ends_the_file_and_nothing_else(tmp_path):
    path = write_media(tmp_path / "a.mp4", times=steady(1, 25))
    with MediaContainer(path, deadline=Deadline(60)) as media:
        media.container = _LateStream(media.container)
        assert len(list(media.packets("video", since=None))) == 25


def test_audio_that_appears_late_has_a_reason(tmp_path):
    """The header of the FLV file claims video only, and the audio begins after the part that FFmpeg probes."""
    path = write_media(
        tmp_path / "late.flv", times=steady(40, 10), sound=impulses(5, 44_100, [1.0]), rate=44_100, sound_start=33.0
    )
    data = bytearray(path.read_bytes())
    data[4] = 0x01
    path.write_bytes(data)
    for center in (None, 1.0, 39.0):
        with pytest.raises(MediaError, match=r"late\.flv: "):
            decode_clip(video=path, frame=None, audio=None, centre_s=center, **CLIP)
        assert read_frame(path, centre_s=center, image_size=48).shape == (48, 48, 3)


@pytest.mark.parametrize(
    "error", [ValueError("bad\nvalue"), IndexError("7"), OverflowError("too large"), AssertionError()]
)
def test_whatever_pyav_raises_is_one_line_with_the_file(tmp_path, error):
    with (
        pytest.raises(MediaError, match=rf"a\.mp4: cannot be decoded \({type(error).__name__}") as caught,
        pyav_errors(tmp_path / "a.mp4", "decoded"),
    ):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), MediaError("a"), AccessError("b"), KeyboardInterrupt()])
def test_errors_of_the_machine_are_passed_on(tmp_path, error):
    with pytest.raises(type(error)) as caught, pyav_errors(tmp_path / "a.mp4"):
        raise error
    assert caught.value is error


def test_open_media_reads_ordinary_files(tmp_path):
    path = write_media(tmp_path / "a.mp4", times=steady(1, 25))
    with open_media(path) as container:
        assert container.streams.video[0].frames == 25
