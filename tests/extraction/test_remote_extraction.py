"""A dataset whose media are on a web server: prepared and extracted to the bytes of the same media on disk."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from pipeline.common.config import AudioSettings, load_card
from pipeline.datasets.prepare import SplitCoverage, prepare_dataset
from pipeline.extraction.extract import ExtractionSummary, extract_split
from pipeline.manifests.clips import Clip, write_clips
from pipeline.manifests.prepared import resolve_media_root
from tests.support.media_files import impulses, steady, write_media
from tests.support.range_server import RangeServer, range_server

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
pytestmark = pytest.mark.usefixtures("one_worker")

AUDIO = {"sample_rate": 8000, "clip_seconds": 0.5, "n_fft": 256, "hop_length": 200, "n_mels": 8}
CARD = f"""
title: Remote clips
source: a test
license: none
media_root: MEDIA
image_size: 16
audio: {AUDIO}
evaluation: {{protocol: paper256}}
"""
CLIPS = [
    *[Clip(f"pair{n}", frame=f"frames/{n}.png", audio=f"sounds/{n}.wav") for n in range(3)],
    Clip("film", video="film #1.mp4", centre_s=1.0),
    Clip("wrong", video="wrong.mp4"),
    Clip("absent", video="absent.mp4"),
]


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with range_server() as server:
        yield server


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    for name in ("frames", "sounds"):
        (root / name).mkdir(parents=True)
    for n in range(3):
        draw = np.random.default_rng(n)
        Image.fromarray(draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(root / f"frames/{n}.png")
        wavfile.write(root / f"sounds/{n}.wav", 8_000, draw.integers(-999, 999, 8_000, dtype=np.int16))
    write_media(root / "film #1.mp4", times=steady(2, 10), sound=impulses(2, 16_000, [1.1]))
    (root / "wrong.mp4").write_text("a web page that says: not found")
    return root


def test_remote_media_give_the_lists_and_shards_of_local_media(
    server: RangeServer, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files = {
        f"set/{path.relative_to(media).as_posix()}": path.read_bytes() for path in media.rglob("*") if path.is_file()
    }
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT_HERE", str(media))

    files = {name: extracted(name, f"{server.url}/set/", tmp_path, server) for name in ("here", "there")}

    assert files["there"] == files["here"]
    assert {"clips.csv", "missing.csv", "shard-00000.h5", "shard-00001.h5", "rejects.csv"} <= {*files["here"]}
    assert b"absent" in files["here"]["missing.csv"]
    assert files["here"]["rejects.csv"].splitlines()[1].startswith(b'wrong,"wrong.mp4: cannot be read')


def extracted(name: str, url: str, folder: Path, server: RangeServer) -> dict[str, bytes]:
    """Prepare and extract the clips; return the content of all files, with two failures of the server on the way."""
    manifest, output = folder / "lists" / name, folder / "data" / name
    manifest.mkdir(parents=True)
    (manifest / "dataset.yaml").write_text(CARD.replace("MEDIA", url))
    write_clips(manifest / "train.csv", CLIPS)
    root = resolve_media_root(load_card(manifest), folder, name)

    server.failures = [503, 503]
    coverage = prepare_dataset(manifest, output, media_root=root, scheduler=None, workers=1)
    server.failures = [0, 0, 503, "cut"]
    summary = extract_split(
        output / "clips.csv",
        "train",
        media_root=root,
        folder=output / "train",
        audio=AudioSettings(**AUDIO),
        image_size=16,
        clips_per_shard=3,
        max_reject_fraction=0.6,
        clip_time_limit_s=30.0,
        scheduler=None,
        workers=1,
    )

    assert coverage.splits["train"] == SplitCoverage(listed=6, found=5)
    assert summary == ExtractionSummary(n_clips=4, n_rejected=1, n_shards=2, n_kept=0)
    paths = [path for path in output.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.name: path.read_bytes() for path in paths}
