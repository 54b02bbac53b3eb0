"""`soundspot browse` as a user calls it, without a browser."""

from __future__ import annotations

import re
import shutil
import socket
from urllib.request import urlopen

import pytest

from pipeline.cli.main import soundspot
from pipeline.common.console import run_command
from pipeline.report.browse.server import BrowseServer
from pipeline.shards.reader import ShardSet
from tests.cli.test_evaluate import PARAMS
from tests.support.labeled_runs import CLIPS, make_run, make_train_shards


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one trained variant, its shards and its clip list."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    shards = ShardSet.open(make_train_shards(tmp_path / "data/squares/shards/train"))
    make_run(tmp_path / "runs/squares/good", shards=shards.fingerprint)
    lines = [f"train,{clip},{clip}.mp4,,,,{'bell' if i % 2 else 'drum'}" for i, clip in enumerate(CLIPS)]
    header = "split,clip_id,video,frame,audio,centre_s,label"
    (tmp_path / "data/squares/clips.csv").write_text("\n".join([header, *lines]) + "\n")
    return tmp_path


def run(*arguments):
    """Run the command line and return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        run_command(soundspot, ["browse", *arguments])
    return stopped.value.code


def test_the_address_is_printed_and_ctrl_c_ends_it(project, monkeypatch, capsys):
    seen = []

    def serve(server):
        seen.append(server.clips.gallery(label="=bell"))
        raise KeyboardInterrupt

    monkeypatch.setattr(BrowseServer, "serve_forever", serve)
    assert run("good") == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", capsys.readouterr().out)
    assert [clip["id"] for clip in seen[0]["clips"]] == CLIPS[1::2]
    assert seen[0]["labels"] == ["bell", "drum"]


def test_a_run_without_shards_or_a_taken_port_is_one_line(project, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run("good", "--port", port) == 1
    assert re.search(rf"^error: port {port} of 127\.0\.0\.1 cannot be used .*--port$", capsys.readouterr().err, re.M)
    shutil.rmtree(project / "data")
    assert run("good") == 1
    assert "runs/squares/good: no shards found for this run; pass their folder with --shards" in capsys.readouterr().err


def test_a_served_page_is_closed_with_the_command(project, monkeypatch):
    addresses = []

    def serve(server):
        addresses.append(server.address)
        raise KeyboardInterrupt

    monkeypatch.setattr(BrowseServer, "serve_forever", serve)
    assert run("good") == 0
    with pytest.raises(OSError, match="refused"):
        urlopen(addresses[0], timeout=10)
