import json

import numpy as np
import pytest

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.vggss import import_vggss, read_annotations, read_train_list, video_of
from pipeline.manifests.boxes import read_boxes
from pipeline.manifests.clips import Clip, read_clips
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.score import score
from tests.support.importing import make_project, options, write_files, write_json, write_lines

CORRUPT = -2.8823037615171176e16
GOOD, SECOND, EMPTY = "zpWuikVorYg_000032", "-AvCUc_6w88_000030", "M1P1xla8rg0_000000"
RECORDS = [
    {"file": GOOD, "class": "elk bugling", "bbox": [[0.1, 0.2, 0.5, 0.75], [0, 0.5, 1, 1]]},
    {
        "file": SECOND,
        "class": "female speech, woman speaking",
        "bbox": [[0.4, 0.2, 0.6, 0.5], [0.8, 0.6, CORRUPT, CORRUPT]],
    },
    {"file": EMPTY, "class": "cello", "bbox": [[0.2, 1.0, 0.7, 1.0]]},
]
TRAIN = ["aaaaaaaaaaa_000001", "bbbbbbbbbbb_000002"]


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


@pytest.fixture
def annotations(tmp_path):
    return write_json(tmp_path / "vggss.json", RECORDS)


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "media"
    write_files(folder, [f"video/{clip_id}.mp4" for clip_id in (GOOD, SECOND, EMPTY, *TRAIN)])
    return folder


def run(project, media, annotations, *, name="vggss", train=None, changes=None, **rest):
    train_list = write_lines(annotations.parent / "train.txt", train) if train else None
    return import_vggss(
        options(project, name, media, **(changes or {})), annotations=annotations, train_list=train_list, **rest
    )


def test_card_lists_and_boxes(project, media, annotations):
    report = run(project, media, annotations, train=TRAIN)
    folder = project / "data_manifests/vggss"
    assert (load_card(folder).image_size, load_card(folder).evaluation.protocol) == (224, "vggss224")
    test = read_clips(folder / "test.csv")
    assert [(c.clip_id, c.video, c.centre_s, c.label) for c in test] == [
        (GOOD, f"video/{GOOD}.mp4", 5.0, "elk bugling"),
        (SECOND, f"video/{SECOND}.mp4", 5.0, "female speech, woman speaking"),
    ]
    assert [c.centre_s for c in read_clips(folder / "train.csv")] == [5.0, 5.0]
    boxes = read_boxes(folder / "test_boxes.csv")
    assert [(b.clip_id, b.x0, b.y0, b.x1, b.y1) for b in boxes] == [
        (GOOD, 0.1, 0.2, 0.5, 0.75),
        (GOOD, 0, 0.5, 1, 1),
        (SECOND, 0.4, 0.2, 0.6, 0.5),
    ]
    assert report.left_out == {"test": {EMPTY: "no usable box"}}


def test_faulty_boxes_are_named_and_counted(project, media, annotations):
    report = run(project, media, annotations)
    assert (report.n_boxes, report.n_boxes_used) == (5, 3)
    assert report.fault_counts() == {"corrupt coordinate": 2, "height <= 0": 2, "width <= 0": 1}
    assert [fault.clip_id for fault in report.box_faults] == [SECOND, EMPTY]
    written = json.loads((project / "data_manifests/vggss/import_report.json").read_text())
    assert written["boxes"]["left_out"][1] == {
        "clip_id": EMPTY,
        "box": ["0.2", "1.0", "0.7", "1.0"],
        "faults": ["height <= 0"],
    }


def test_silent_clips_pair_the_frame_and_audio_of_two_videos(project, media, annotations, tmp_path):
    listed = write_lines(
        tmp_path / "plus_silent.csv",
        [
            "video,audio,label",
            f"{GOOD},{EMPTY},non-sounding",
            f"{SECOND},{SECOND},non-sounding",
            f"{SECOND},{GOOD},sounding",
            f"xxxxxxxxxxx_000009,{GOOD},non-sounding",
        ],
    )
    report = run(project, media, annotations, silent=listed)
    folder = project / "data_manifests/vggss"
    silent = Clip(f"silent-{GOOD}-{EMPTY}", frame=f"video/{GOOD}.mp4", audio=f"video/{EMPTY}.mp4", centre_s=5.0)
    test = read_clips(folder / "test.csv")
    assert [clip.clip_id for clip in test] == [GOOD, SECOND]
    assert read_clips(folder / "test_silent.csv") == [*test, silent]
    assert (folder / "test_silent_boxes.csv").read_bytes() == (folder / "test_boxes.csv").read_bytes()
    assert report.left_out["test_silent"] == {
        f"silent-{SECOND}-{SECOND}": "frame and audio are from the same clip",
        f"silent-{SECOND}-{GOOD}": "labeled 'sounding'",
        f"silent-xxxxxxxxxxx_000009-{GOOD}": "no media",
    }
    # SLAVC's protocol scores a silent clip by the model's confidence.
    boxes = read_boxes(folder / "test_silent_boxes.csv")
    maps = np.random.default_rng(0).random((3, 7, 7))
    scores = score(maps, [GOOD, SECOND, silent.clip_id], boxes, get_protocol("slavc-vggss224"))
    assert (scores.counts["n_clips"], len(scores.extra["silent_confidence"])) == (2, 1)


def test_training_on_a_part_of_a_silent_clip_is_a_leak(project, media, annotations, tmp_path):
    listed = write_lines(tmp_path / "silent.csv", [f"{GOOD},{TRAIN[0]}"])
    with pytest.raises(ManifestError, match=rf"1 training clip .*: {TRAIN[0]}\. .*--leaks drop"):
        run(project, media, annotations, train=TRAIN, silent=listed)
    for content, message in (
        ("a,b\n", r"silent.csv:1: 'a'"),
        (f"{GOOD},{GOOD}\n", "silent.csv: .*no silent clips"),
    ):
        listed.write_text(content)
        with pytest.raises(ManifestError, match=message):
            run(project, media, annotations, silent=listed)


def test_a_crlf_test_list_selects_clips(project, media, annotations, tmp_path):
    listed = tmp_path / "vggss_test.csv"
    listed.write_bytes(f"{GOOD}\r\nxxxxxxxxxxx_000009\r\n".encode())
    report = run(project, media, annotations, test_list=listed)
    assert [c.clip_id for c in read_clips(project / "data_manifests/vggss/test.csv")] == [GOOD]
    assert report.left_out == {"test": {"xxxxxxxxxxx_000009": "not annotated"}}


def test_a_leak_is_found_by_video_though_the_clip_is_another(project, media, annotations):
    other_part = f"{video_of(GOOD)}_000200"
    write_files(media, [f"video/{other_part}.mp4"])
    with pytest.raises(ManifestError, match=rf"1 training clip .*: {other_part}\. .*--leaks drop"):
        run(project, media, annotations, train=[*TRAIN, other_part])
    run(project, media, annotations, train=[*TRAIN, other_part], changes={"leaks": "drop"})
    assert [c.clip_id for c in read_clips(project / "data_manifests/vggss/train.csv")] == TRAIN


def test_a_video_whose_only_test_clip_is_unusable_still_leaks(project, media, annotations):
    with pytest.raises(ManifestError, match=EMPTY):
        run(project, media, annotations, train=[*TRAIN, EMPTY])


def test_keeping_leaks_is_written_on_the_card(project, media, annotations):
    run(project, media, annotations, train=[*TRAIN, GOOD], changes={"leaks": "keep"})
    assert load_card(project / "data_manifests/vggss").leaks_allowed
    assert len(read_clips(project / "data_manifests/vggss/train.csv")) == 3


def test_flat_media(project, annotations, tmp_path):
    write_files(
        tmp_path / "flat", [f"{kind}/{GOOD}.{suffix}" for kind, suffix in (("frames", "jpg"), ("audio", "wav"))]
    )
    report = run(project, tmp_path / "flat", annotations)
    assert read_clips(project / "data_manifests/vggss/test.csv")[0].frame == f"frames/{GOOD}.jpg"
    assert report.left_out["test"][SECOND] == "no media"


def test_without_training_clips_the_dataset_is_for_testing(project, media, annotations):
    report = run(project, media, annotations)
    assert not (project / "data_manifests/vggss/train.csv").exists()
    assert any("no training clips" in note for note in report.notes)


def test_checking_reads_no_media(project, annotations, tmp_path):
    report = run(project, tmp_path / "none", annotations, changes={"check_only": True})
    assert len(report.box_faults) == 2
    assert not (project / "data_manifests").exists()


def test_training_lists_of_either_form(tmp_path):
    report = ImportReport("x")
    plain = write_lines(tmp_path / "a.txt", [TRAIN[0], TRAIN[0], f"{TRAIN[1]},cello"])
    assert read_train_list(plain, report) == (TRAIN, {TRAIN[1]: "cello"})
    assert "1 duplicate id," in report.notes[0]
    official = write_lines(
        tmp_path / "vggsound.csv", ["aaaaaaaaaaa,1,elk,train", "ccccccccccc,3,x,test", 'bbbbbbbbbbb,2,"a, b",train']
    )
    assert read_train_list(official, report) == (TRAIN, {TRAIN[0]: "elk", TRAIN[1]: "a, b"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("aaaaaaaaaaa_1", r"t.txt:2: 'aaaaaaaaaaa_1'"),
        ("a,b,c", r"t.txt:2: 3 columns"),
        ("aaaaaaaaaaa_000001_000011,x", "t.txt:2: 'aaaaaaaaaaa_000001_000011'"),
    ],
)
def test_a_malformed_training_list_is_refused(tmp_path, line, message):
    path = write_lines(tmp_path / "t.txt", [TRAIN[0], line])
    with pytest.raises(ManifestError, match=message):
        read_train_list(path, ImportReport("x"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "v.json: expected a list"),
        ([{"file": GOOD, "bbox": []}], "record 0: expected keys"),
        ([{"file": "short", "class": "x", "bbox": []}], "record 0: 'short'"),
        ([{"file": GOOD, "class": "x", "bbox": None}], "record 0: .*'bbox' a list"),
        ([RECORDS[0], RECORDS[0]], f"record 1: duplicate .*{GOOD}"),
    ],
)
def test_malformed_json_is_refused(tmp_path, content, message):
    with pytest.raises(ManifestError, match=message):
        read_annotations(write_json(tmp_path / "v.json", content), ImportReport("x"))


def test_a_row_that_is_not_a_box_is_a_fault(tmp_path):
    report = ImportReport("x")
    truth = read_annotations(
        write_json(tmp_path / "v.json", [{"file": GOOD, "class": "x", "bbox": [0.5, [0, 0, 1, 1]]}]), report
    )
    assert report.box_faults[0].faults == ("not four numbers",)
    assert len(truth.boxes[GOOD]) == 1


@pytest.mark.parametrize(
    ("box", "looks_like"), [([0.6, 0.6, 0.3, 0.3], r"\[x, y, width, height\]"), ([60, 60, 90, 90], "another unit")]
)
def test_a_file_of_sizes_or_of_pixels_is_refused_as_a_whole(tmp_path, box, looks_like):
    records = [{"file": f"{'a' * 10}{i}_000001", "class": "x", "bbox": [box]} for i in range(8)]
    with pytest.raises(ManifestError, match=looks_like):
        read_annotations(write_json(tmp_path / "v.json", records), ImportReport("x"))
