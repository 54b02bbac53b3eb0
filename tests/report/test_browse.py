"""`soundspot browse`: pages of clips, their media, and a server that only this machine may read from."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from http.client import HTTPConnection
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from pipeline.common.errors import PseudoLabelError
from pipeline.common.project import labels_path
from pipeline.manifests.prepared import read_prepared_clips
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.report.browse import run_clips
from pipeline.report.browse.run_clips import RunClips
from pipeline.report.browse.server import BrowseServer
from tests.support.page_world import HOSTILE, TRAIN, make_source


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("world"))


@pytest.fixture
def clips(source, monkeypatch):
    monkeypatch.setattr(run_clips, "PAGE_CLIPS", 4)
    listed = {clip.clip_id: clip for clip in read_prepared_clips(source.clips, "train")}
    return RunClips(source.runs / "iterative", source.train_shards, listed, source.media_root)


@pytest.fixture
def server(clips):
    with BrowseServer(clips, title=HOSTILE) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ids(gallery):
    return [clip["id"] for clip in gallery["clips"]]


def get(server, path):
    with urlopen(server.address + path, timeout=60) as answer:
        return answer.headers, answer.read()


def test_pages_hold_all_clips_once_and_in_order(clips):
    pages = [clips.gallery(offset=str(offset)) for offset in (0, 4, 8)]
    assert [clip_id for page in pages for clip_id in ids(page)] == TRAIN
    assert {(page["total"], page["found"]) for page in pages} == {(9, 9)}
    assert [page["offset"] for page in pages] == [0, 4, 8]
    # An offset inside a page, behind the end, or no number at all.
    assert [clips.gallery(offset=each)["offset"] for each in ("5", "100", "-3", "x", "9" * 5000)] == [4, 8, 0, 0, 0]


def test_a_page_has_the_maps_of_every_epoch(clips, source):
    page = clips.gallery(offset="4")
    artifacts = [PseudoLabels.open(labels_path(source.runs / "iterative", epoch)) for epoch in range(3)]
    for clip in page["clips"]:
        for epoch, labels in enumerate(artifacts):
            cells = np.frombuffer(base64.b64decode(clip["maps"][0][epoch]), np.uint8).reshape(4, 4) / 255
            np.testing.assert_allclose(cells, labels[clip["id"]].response, atol=0.5 / 255 + 1e-6)
    assert page["methods"][0]["epochs"] == [0, 1, 2]


def test_clips_are_found_by_id_label_and_place(clips):
    assert ids(clips.gallery(text="IN-03")) == ["train-03"]
    assert ids(clips.gallery(label="=drum")) == TRAIN[1::2]
    assert clips.gallery(label="=drum", text="7")["found"] == 1
    assert clips.gallery(clip="train-06")["offset"] == 4
    assert clips.gallery(clip="nothing")["offset"] == 0
    assert ids(clips.gallery(**{"self": "1", "text": "IN-03"})) == ["train-03"]
    empty = clips.gallery(text="nothing")
    assert (empty["clips"], empty["found"], empty["offset"]) == ([], 0, 0)


def test_sorts_are_by_the_regions_of_the_artifacts(clips, source):
    first, last = (PseudoLabels.open(labels_path(source.runs / "iterative", epoch)) for epoch in (0, 2))
    region = dict(zip(TRAIN, last.masks.mean(axis=(1, 2)), strict=True))
    iou = {
        clip_id: (before & after).sum() / max((before | after).sum(), 1)
        for clip_id, before, after in zip(TRAIN, first.masks, last.masks, strict=True)
    }
    for sort, key in (
        ("largest", lambda clip_id: -region[clip_id]),
        ("smallest", region.get),
        ("changed", iou.get),
        ("settled", lambda clip_id: -iou[clip_id]),
        ("name", lambda clip_id: 0),
        ("unknown", lambda clip_id: 0),
    ):
        found = [clip_id for offset in (0, 4, 8) for clip_id in ids(clips.gallery(sort=sort, offset=str(offset)))]
        assert found == sorted(TRAIN, key=key), sort


def test_shards_of_another_dataset_are_refused(source):
    with pytest.raises(PseudoLabelError, match=r"epoch_002\.h5: clip 'train-00' is not among the 12 clips.*--shards"):
        RunClips(source.runs / "iterative", source.scored_shards, {}, source.media_root)


def test_the_server_answers_with_the_page_the_clips_and_their_media(server, clips):
    headers, page = get(server, "")
    assert headers["Content-Type"].startswith("text/html")
    assert re.search(r"<title>&lt;script&gt;.* · soundspot browse</title>", page.decode())
    assert "<script>window" not in page.decode()
    _, content = get(server, "clips?" + urlencode({"label": "=drum", "offset": "4"}))
    assert json.loads(content) == json.loads(json.dumps(clips.gallery(label="=drum", offset="4")))
    clip = json.loads(content)["clips"][0]
    for kind, shape in (("frame", (32, 32)), ("mel", None)):
        headers, image = get(server, clip[kind])
        assert headers["Content-Type"] == "image/jpeg"
        assert shape in (None, Image.open(io.BytesIO(image)).size)
    assert clip["audio"] == ""
    with_audio = json.loads(get(server, "clips")[1])["clips"][0]
    headers, sound = get(server, with_audio["audio"])
    assert headers["Content-Type"] == "audio/mpeg"
    assert len(sound) > 1000


@pytest.mark.parametrize("path", ["nothing", "frame?clip=nothing", "frame", "audio?clip=train-01", "../clips.csv"])
def test_there_is_nothing_else_to_read(server, path):
    with pytest.raises(HTTPError, match="404"):
        get(server, path)


def test_the_default_port_may_be_left_out(server, monkeypatch):
    for host, default, status in (("127.0.0.1", True, 200), ("localhost", True, 200), ("127.0.0.1", False, 403)):
        monkeypatch.setattr("pipeline.report.browse.server.HTTP_PORT", server.server_port if default else 80)
        connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request("GET", "/", headers={"Host": host})
        assert connection.getresponse().status == status, (host, default)
        connection.close()


def test_only_this_machine_may_ask_and_nothing_can_be_changed(server):
    assert server.server_address[0] == "127.0.0.1"
    for method, host, status in (
        ("GET", "example.com", 403),
        ("GET", f"localhost:{server.server_port}", 200),
        ("POST", None, 501),
    ):
        connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request(method, "/", headers={"Host": host} if host else {})
        assert connection.getresponse().status == status, (method, host)
        connection.close()


def test_a_damaged_file_is_one_line(server, source, tmp_path, monkeypatch):
    def damaged(indices):
        raise PseudoLabelError("epoch_001.h5: damaged")

    monkeypatch.setattr(server.clips, "gallery", lambda **query: damaged(query))
    with pytest.raises(HTTPError, match="500") as error:
        get(server, "clips")
    assert error.value.read() == b"epoch_001.h5: damaged"


@pytest.mark.parametrize(
    ("error", "printed"), [(BrokenPipeError, False), (ConnectionResetError, False), (ValueError, True)]
)
def test_a_browser_that_hangs_up_prints_nothing(server, capfd, error, printed):
    try:
        raise error("while answering")
    except error:
        server.handle_error(None, ("127.0.0.1", 1))
    assert ("while answering" in capfd.readouterr().err) == printed
