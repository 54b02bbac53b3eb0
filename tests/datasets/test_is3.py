import pytest

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.is3 import import_is3, read_entries
from pipeline.datasets.importers.report import ImportReport
from pipeline.manifests.boxes import read_boxes
from pipeline.manifests.clips import Clip, read_clips, write_clips
from tests.support.importing import make_project, options, write_files, write_json

NAMES = ["accordion_female_10438_accordion", "accordion_female_10438_female", "fox_train_subway"]


def record(name, box):
    return {"image": f"/mnt/a/visual_frames/{name}.jpg", "audio": f"/mnt/a/audio_wav/{name}.wav", "gt_box": box}


RECORDS = [
    record(NAMES[0], [47.0, 99.0, 154.0, 185.0]),
    record(NAMES[1], [0.0, 0.0, 224.0, 9.0]),
    record(NAMES[2], [1, 1, 3, 3]),
]


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "media"
    write_files(folder, [f"visual_frames/{n}.jpg" for n in NAMES] + [f"audio_wav/{n}.wav" for n in NAMES])
    return folder


def run(project, media, records, *, changes=None, **rest):
    annotations = write_json(project.parent / "boxes.json", records)
    return import_is3(options(project, "is3", media, **(changes or {})), annotations=annotations, **rest)


def test_card_clips_and_boxes(project, media):
    report = run(project, media, RECORDS)
    folder = project / "data_manifests/is3"
    assert (load_card(folder).image_size, load_card(folder).evaluation.protocol) == (224, "iiou224")
    clip = read_clips(folder / "test.csv")[0]
    assert clip == Clip(
        NAMES[0], frame=f"visual_frames/{NAMES[0]}.jpg", audio=f"audio_wav/{NAMES[0]}.wav", label="accordion"
    )
    boxes = read_boxes(folder / "test_boxes.csv")
    assert [b.source for b in boxes] == ["accordion", "female", "subway"]
    assert [round(224 * v) for v in (boxes[0].x0, boxes[0].y0, boxes[0].x1, boxes[0].y1)] == [47, 99, 154, 185]
    assert not (folder / "train.csv").exists()
    assert any(note.startswith("2 pairs, 1 of") for note in report.notes)


def test_every_pixel_number_comes_back_by_rounding(tmp_path):
    records = [record(f"a_{x}_b", [x, 0, x + 1, 224]) for x in range(224)]
    entries = read_entries(write_json(tmp_path / "b.json", records), ImportReport("x"))
    assert [round(224 * entries[f"a_{x}_b"].box.x0) for x in range(224)] == list(range(224))


def test_empty_boxes_and_missing_media_are_reported(project, media):
    (media / f"audio_wav/{NAMES[1]}.wav").unlink()
    report = run(project, media, [RECORDS[0], RECORDS[1], record(NAMES[2], [0.0, 0.0, 0.0, 0.0])])
    assert report.left_out == {"test": {NAMES[2]: "no usable box", NAMES[1]: "no media"}}
    assert report.fault_counts() == {"height <= 0": 1, "width <= 0": 1}
    assert report.used == {"test": 1}


def test_flat_media(project, tmp_path):
    write_files(tmp_path / "flat", [f"frames/{NAMES[0]}.jpg", f"audio/{NAMES[0]}.wav"])
    run(project, tmp_path / "flat", RECORDS[:1])
    assert read_clips(project / "data_manifests/is3/test.csv")[0].audio == f"audio/{NAMES[0]}.wav"


def test_a_clip_list_to_train_on_may_not_hold_test_clips(project, media, tmp_path):
    write_files(media, ["more/a.mp4"])
    train = [Clip("mine", video="more/a.mp4"), Clip("gone", video="more/b.mp4")]
    write_clips(tmp_path / "train.csv", train)
    report = run(project, media, RECORDS, train_clips=tmp_path / "train.csv")
    assert read_clips(project / "data_manifests/is3/train.csv") == train[:1]
    assert report.left_out["train"] == {"gone": "no media"}
    write_clips(tmp_path / "train.csv", [Clip(NAMES[0], video="more/a.mp4")])
    with pytest.raises(ManifestError, match=rf"1 training clip .*{NAMES[0]}"):
        run(project, media, RECORDS, train_clips=tmp_path / "train.csv", changes={"force": True})
    write_clips(tmp_path / "train.csv", [Clip("same", frame="more/a.mp4", audio=f"audio_wav/{NAMES[0]}.wav")])
    with pytest.raises(ManifestError, match=rf"share 1 .*file 'audio_wav/{NAMES[0]}.wav'"):
        run(project, media, RECORDS, train_clips=tmp_path / "train.csv", changes={"force": True})


def test_training_clips_that_share_a_file_with_test_clips_are_dropped_or_kept(project, media, tmp_path):
    write_files(media, ["more/a.mp4"])
    train = [Clip("mine", video="more/a.mp4"), Clip("same", frame="more/a.mp4", audio=f"audio_wav/{NAMES[0]}.wav")]
    write_clips(tmp_path / "train.csv", train)
    with pytest.raises(ManifestError, match=r"share 1 .*'same'.*--leaks drop"):
        run(project, media, RECORDS, train_clips=tmp_path / "train.csv")
    report = run(project, media, RECORDS, train_clips=tmp_path / "train.csv", changes={"leaks": "drop"})
    assert read_clips(project / "data_manifests/is3/train.csv") == train[:1]
    assert report.left_out["train"].keys() == {"same"}
    assert not load_card(project / "data_manifests/is3").leaks_allowed
    keep = {"leaks": "keep", "force": True}
    report_of_kept = run(project, media, RECORDS, train_clips=tmp_path / "train.csv", changes=keep)
    assert read_clips(project / "data_manifests/is3/train.csv") == train
    assert report_of_kept.shared
    assert any("shared: 1 " in line and "'same'" in line for line in report_of_kept.lines())
    assert load_card(project / "data_manifests/is3").leaks_allowed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "b.json: expected a list"),
        ([{"image": "a.jpg"}], "record 0: expected keys .*'gt_box'"),
        ([{"image": "a.jpg", "audio": "a.wav", "gt_box": "masks/a.png"}], "record 0: 'gt_box' .*mask"),
        ([{"image": "a.jpg", "audio": "a.wav", "gt_box": 3}], "record 0: .*'gt_box' a list"),
        ([RECORDS[0], RECORDS[0]], f"record 1: duplicate .*{NAMES[0]}"),
        ([record("a b", [0, 0, 1, 1])], "record 0: 'a b'"),
        ([record(f"a_{i}", [100, 100, 50, 50]) for i in range(6)], r"6 of 6 .*\[x, y, width, height\]"),
    ],
)
def test_malformed_json_is_refused(tmp_path, content, message):
    with pytest.raises(ManifestError, match=message):
        read_entries(write_json(tmp_path / "b.json", content), ImportReport("x"))
