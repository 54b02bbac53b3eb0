"""Stage `prepare`: existing clips are listed, missing ones are reported, and contradictory lists are refused."""

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.common.config import load_card
from pipeline.common.errors import AccessError, EvaluationError, ManifestError
from pipeline.datasets import prepare as preparation
from pipeline.datasets.media_files import media_problems
from pipeline.datasets.prepare import Coverage, SplitCoverage, prepare_dataset
from pipeline.manifests.boxes import Box, other_splits, write_boxes
from pipeline.manifests.clips import Clip, write_clips
from pipeline.manifests.prepared import (
    local_media_root_from_environment,
    read_media_fingerprint,
    read_prepared_clips,
    resolve_media_root,
)

CARD = """
title: Three clips
source: a test
license: none
media_root: data/three/media
image_size: 16
audio: {sample_rate: 8000, clip_seconds: 0.5, n_fft: 256, hop_length: 200, n_mels: 8}
evaluation: {protocol: paper256}
"""
TRAIN = [Clip("a", video="a.mp4"), Clip("b", frame="b.png", audio="b.wav", centre_s=0.25, label="bell")]
TEST = [Clip("c", video="sub/c.mp4")]
BOX = Box("c", "bell", "me", True, 0.1, 0.1, 0.5, 0.5)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two splits and the boxes of one."""
    folder = tmp_path / "manifest"
    folder.mkdir()
    (folder / "dataset.yaml").write_text(CARD)
    write_clips(folder / "train.csv", TRAIN)
    write_clips(folder / "test.csv", TEST)
    write_boxes(folder / "test_boxes.csv", [BOX])
    return folder


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    for clip in [*TRAIN, *TEST]:
        for medium in clip.media:
            (root / medium).parent.mkdir(parents=True, exist_ok=True)
            (root / medium).write_bytes(b"x")
    return root


def prepare(manifest: Path, media: Path, output: Path) -> Coverage:
    return prepare_dataset(manifest, output, media_root=media, scheduler=None, workers=1)


def test_all_clips_that_are_there_are_listed(manifest: Path, media: Path, tmp_path: Path) -> None:
    coverage = prepare(manifest, media, tmp_path / "out")

    assert coverage == Coverage({"train": SplitCoverage(2, 2), "test": SplitCoverage(1, 1)}, media="")
    assert coverage.describe() == "train: 2 of 2 clips found\ntest: 1 of 1 clips found"
    assert read_prepared_clips(tmp_path / "out/clips.csv", "train") == TRAIN
    assert read_prepared_clips(tmp_path / "out/clips.csv", "test") == TEST
    assert (tmp_path / "out/missing.csv").read_text() == "split,clip_id,path,problem\n"
    assert json.loads((tmp_path / "out/coverage.json").read_text()) == {
        "train": {"listed": 2, "found": 2},
        "test": {"listed": 1, "found": 1},
    }
    assert read_media_fingerprint(tmp_path / "out/fingerprints.json") == ""


def test_each_split_has_a_fingerprint_of_its_own_clips_that_exist(manifest: Path, media: Path, tmp_path: Path) -> None:
    def prints() -> dict[str, str]:
        prepare(manifest, media, tmp_path / "out")
        return json.loads((tmp_path / "out/fingerprints.json").read_text())

    before = prints()
    assert set(before) == {"media", "test", "train", "validation"}
    assert (before["media"], before["validation"]) == ("", "")
    assert len({before["train"], before["test"], ""}) == 3
    assert prints() == before
    write_clips(manifest / "test.csv", [Clip("c", video="sub/c.mp4", centre_s=1.0)])
    after = prints()
    assert {name for name in before if after[name] != before[name]} == {"test"}
    (media / "b.wav").unlink()
    assert {name for name, value in prints().items() if value != after[name]} == {"train"}


@pytest.mark.parametrize("problem", ["no such file", "empty"])
def test_missing_clips_are_left_out_and_reported(manifest: Path, media: Path, tmp_path: Path, problem: str) -> None:
    (media / "b.wav").unlink()
    if problem == "empty":
        (media / "b.wav").touch()

    coverage = prepare(manifest, media, tmp_path / "out")

    assert coverage.splits["train"] == SplitCoverage(listed=2, found=1)
    assert "b.wav" in coverage.describe().splitlines()[-1]
    assert read_prepared_clips(tmp_path / "out/clips.csv", "train") == TRAIN[:1]
    assert (tmp_path / "out/missing.csv").read_text().splitlines()[1:] == [f"train,b,b.wav,{problem}"]


def test_a_file_whose_name_changed_on_the_way_is_named(manifest: Path, media: Path, tmp_path: Path) -> None:
    write_clips(manifest / "train.csv", [*TRAIN, Clip("d", video="sub/\u00e9t\u00e9.mp4"), Clip("e", video="A.MP4")])
    (media / "sub" / "e\u0301te\u0301.mp4").write_bytes(b"x")
    prepare(manifest, media, tmp_path / "out")
    rows = (tmp_path / "out/missing.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",", 3)[:3] for row in rows] == [["train", "d", "sub/\u00e9t\u00e9.mp4"], ["train", "e", "A.MP4"]]
    assert "the folder has 'e\u0301te\u0301.mp4'" in rows[0]
    assert "the folder has 'a.mp4'" in rows[1]
    for path in (media / "a.mp4", media / "b.png"):
        path.unlink()
    (media / "A.mp4").write_bytes(b"x")
    write_clips(manifest / "train.csv", TRAIN)
    with pytest.raises(ManifestError, match=r"none of the 2 clips.*the folder has 'A\.mp4'"):
        prepare(manifest, media, tmp_path / "out")


def test_a_split_without_any_file_names_the_place_and_the_variable(manifest: Path, tmp_path: Path) -> None:
    root = tmp_path / "nowhere"

    with pytest.raises(ManifestError) as caught:
        prepare(manifest, root, tmp_path / "out")

    message = str(caught.value)
    assert message.startswith("train: none of the 2 clips")
    assert f"{root};" in message
    assert str(root / "a.mp4") in message
    assert "SOUNDSPOT_MEDIA_ROOT_MANIFEST" in message
    assert not (tmp_path / "out").exists()


def test_an_unknown_protocol_is_detected_early(manifest: Path, media: Path, tmp_path: Path) -> None:
    (manifest / "dataset.yaml").write_text(CARD.replace("paper256", "paper999"))
    with pytest.raises(EvaluationError, match="'paper999'"):
        prepare(manifest, media, tmp_path / "out")


def test_a_folder_in_place_of_a_file_is_reported(manifest: Path, media: Path, tmp_path: Path) -> None:
    (media / "a.mp4").unlink()
    (media / "a.mp4").mkdir()
    prepare(manifest, media, tmp_path / "out")
    assert "train,a,a.mp4,not a regular file\n" in (tmp_path / "out/missing.csv").read_text()


def test_media_are_rendered_when_the_card_says_so(
    manifest: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (manifest / "dataset.yaml").write_text(CARD + "render: {seed: 7, context: 0.3}\n")
    calls: list[tuple[list[Clip], dict[str, Any]]] = []

    def render(clips: Sequence[Clip], **settings: Any) -> str:
        calls.append((list(clips), settings))
        return "f00d"

    monkeypatch.setattr(preparation, "render_media", render)

    coverage = prepare(manifest, media, tmp_path / "out")

    settings = {"media_root": media, "seed": 7, "context": 0.3, "scheduler": None, "workers": 1}
    assert calls == [([*TRAIN, *TEST], settings)]
    assert coverage.media == read_media_fingerprint(tmp_path / "out/fingerprints.json") == "f00d"


def test_train_may_share_nothing_with_test(manifest: Path, media: Path, tmp_path: Path) -> None:
    write_clips(manifest / "train.csv", [*TRAIN, Clip("d", video="sub/c.mp4", centre_s=1.0)])

    with pytest.raises(ManifestError) as caught:
        prepare(manifest, media, tmp_path / "out")

    message = str(caught.value)
    assert message.startswith(f"{manifest}: train.csv and test.csv overlap")
    assert all(name in message for name in ("'sub/c.mp4'", "clip 'd'", "clip 'c'"))
    assert message.endswith("from train.csv")


def test_validation_may_share_nothing_with_test(manifest: Path, media: Path, tmp_path: Path) -> None:
    write_clips(manifest / "validation.csv", TEST)

    with pytest.raises(ManifestError, match=r"validation\.csv and test\.csv .*'c'"):
        prepare(manifest, media, tmp_path / "out")


def test_scored_splits_may_overlap(manifest: Path, media: Path, tmp_path: Path) -> None:
    write_clips(manifest / "test_heard.csv", TEST)

    coverage = prepare(manifest, media, tmp_path / "out")

    assert list(coverage.splits) == ["train", "test", "test_heard"]


def test_boxes_belong_to_clips_of_their_split(manifest: Path, media: Path, tmp_path: Path) -> None:
    write_boxes(manifest / "test_boxes.csv", [BOX, Box("a", "bell", "me", True, 0.1, 0.1, 0.5, 0.5)])

    with pytest.raises(ManifestError, match=r"test_boxes\.csv: .*1 clips .*test\.csv.* 'a'"):
        prepare(manifest, media, tmp_path / "out")


def test_boxes_in_parquet_are_refused_by_the_name_of_their_file(manifest: Path, media: Path, tmp_path: Path) -> None:
    (manifest / "test_boxes.csv").rename(manifest / "test_boxes.parquet")

    with pytest.raises(ManifestError, match=r"test_boxes\.parquet: .*CSV.*test_boxes\.csv"):
        prepare(manifest, media, tmp_path / "out")


def test_boxes_without_a_list_are_refused(manifest: Path, media: Path, tmp_path: Path) -> None:
    (manifest / "test.csv").unlink()

    with pytest.raises(ManifestError, match=r"test_boxes\.csv: .*test\.csv is missing"):
        prepare(manifest, media, tmp_path / "out")


def test_hidden_files_are_not_lists(manifest: Path, media: Path, tmp_path: Path) -> None:
    """As macOS leaves them on other file systems, and Emacs while a file is open."""
    (manifest / "._train.csv").write_bytes(b"\x00\x05\x16\x07\xff")
    (manifest / "._test_boxes.csv").write_bytes(b"\x00\x05\x16\x07\xff")
    (manifest / ".#train.csv").symlink_to("nowhere")
    assert set(prepare(manifest, media, tmp_path / "out").splits) == {"train", "test"}
    assert other_splits(manifest, "train") == ["test"]


def test_a_folder_without_lists_is_refused(manifest: Path, media: Path, tmp_path: Path) -> None:
    for path in manifest.glob("*.csv"):
        path.unlink()

    with pytest.raises(ManifestError, match="no clip list"):
        prepare(manifest, media, tmp_path / "out")


def test_an_output_folder_that_cannot_be_made_is_named(manifest: Path, media: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ManifestError, match="file/out: "):
        prepare(manifest, media, tmp_path / "file" / "out")


def test_prepared_clips_name_what_is_missing(manifest: Path, media: Path, tmp_path: Path) -> None:
    prepare(manifest, media, tmp_path)

    with pytest.raises(ManifestError, match=r"clips\.csv: .*'validation'.*test, train"):
        read_prepared_clips(tmp_path / "clips.csv", "validation")
    with pytest.raises(ManifestError, match=r"none\.csv: .*dvc repro prepare"):
        read_prepared_clips(tmp_path / "none.csv", "train")
    with pytest.raises(ManifestError, match=r"none\.json: .*fingerprints"):
        read_media_fingerprint(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", "/project/data/three/media"), ("/elsewhere", "/elsewhere"), ("relative", "/project/relative")],
)
def test_the_media_root_can_be_set_in_the_environment(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT", value)

    assert resolve_media_root(load_card(manifest), Path("/project"), "three") == Path(expected)


def test_each_dataset_can_have_its_own_media_root(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, project = load_card(manifest), Path("/project")
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT", "/all")
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT_MY_SET_2", "/mine")
    assert resolve_media_root(card, project, "my-set_2") == Path("/mine")
    assert resolve_media_root(card, project, "other") == Path("/all")
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT_OTHER", "")
    assert resolve_media_root(card, project, "other") == Path("/all")


def test_the_environment_does_not_move_rendered_media(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT", "/elsewhere")
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT_THREE", "/elsewhere")
    card = manifest / "dataset.yaml"
    card.write_text(card.read_text() + "render: {seed: 0}\n")

    assert resolve_media_root(load_card(manifest), Path("/project"), "three") == Path("/project/data/three/media")


def test_splits_may_overlap_where_the_card_allows_it(manifest, media, tmp_path):
    write_clips(manifest / "test.csv", [TRAIN[0]])
    write_boxes(manifest / "test_boxes.csv", [])
    with pytest.raises(ManifestError, match="overlap"):
        prepare_dataset(manifest, tmp_path / "out", media_root=media, scheduler=None, workers=None)
    card = manifest / "dataset.yaml"
    card.write_text(card.read_text() + "leaks_allowed: true\n")
    coverage = prepare_dataset(manifest, tmp_path / "out", media_root=media, scheduler=None, workers=None)
    assert coverage.splits["test"] == SplitCoverage(1, 1)


def test_each_file_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n}.mp4" for n in range(700)]
    for name in names[::2]:
        (tmp_path / name).write_bytes(b"x" * (name != "4.mp4"))
    (tmp_path / "1.mp4").mkdir()
    clips = [Clip(f"{copy}-{n}", video=name) for copy in range(2) for n, name in enumerate(names)]
    seen: list[str] = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: (seen.append(path.name), stat(path, **how))[1])

    problems = media_problems(clips, tmp_path)

    assert sorted(seen) == sorted(names)
    assert problems == {"1.mp4": "not a regular file", "4.mp4": "empty"} | dict.fromkeys(names[3::2], "no such file")


def test_a_drive_that_does_not_answer_makes_no_clip_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, **_: object) -> None:
        raise OSError(errno.ESTALE if path.name == "b.mp4" else errno.EACCES, "no answer")

    monkeypatch.setattr(Path, "stat", fail)

    assert media_problems([Clip("a", video="a.mp4")], tmp_path) == {"a.mp4": "cannot be read: no answer"}
    with pytest.raises(AccessError, match=r"b\.mp4"):
        media_problems([Clip("a", video="a.mp4"), Clip("b", video="b.mp4")], tmp_path)


def test_a_url_is_a_media_root_but_not_for_importers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dataset.yaml").write_text(CARD.replace("data/three/media", "s3://bucket/three/"))
    card = load_card(tmp_path)
    monkeypatch.delenv("SOUNDSPOT_MEDIA_ROOT", raising=False)

    assert str(resolve_media_root(card, tmp_path, "three")) == "s3://bucket/three"
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT_THREE", "https://host/three")
    assert str(resolve_media_root(card, tmp_path, "three") / "a b.mp4") == "https://host/three/a%20b.mp4"
    with pytest.raises(ManifestError, match=r"https://host/three"):
        local_media_root_from_environment("three")
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT_THREE", str(tmp_path))
    assert local_media_root_from_environment("three") == resolve_media_root(card, tmp_path, "three") == tmp_path
