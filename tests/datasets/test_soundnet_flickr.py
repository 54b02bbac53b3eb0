import json
import pickle

import numpy as np
import pytest

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.flickr_boxes import fractional_boxes, read_raw_boxes
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.soundnet_flickr import import_soundnet_flickr
from pipeline.datasets.prepare import read_splits
from pipeline.manifests.boxes import read_boxes
from pipeline.manifests.clips import read_clips
from tests.support.importing import flickr_xml, make_project, options, tree, write_files, write_json, write_lines

BOXES = {"10": [[83, 108, 167, 256], [88, 104, 151, 256]], "21": [[1, 1, 256, 256]], "32": [[1, 2, 3, 4], [5, 6, 7, 8]]}
TRAIN = ["100", "111", "122", "133", "144"]


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


def write_official(media, ids):
    write_files(media, [f"Data/{i[-1]}/{i}{suffix}" for i in ids for suffix in (".jpg", ".wav")])


@pytest.fixture
def sources(tmp_path):
    """Lists, boxes and official media of five training and three annotated clips."""
    media = tmp_path / "media"
    write_official(media, [*TRAIN, *BOXES])
    return {
        "media": media,
        "train_list": write_lines(tmp_path / "train.txt", TRAIN),
        "test_list": write_lines(tmp_path / "test.csv", ["10,202", "21,0"]),
        "boxes": write_json(tmp_path / "boxes.json", {"comment": "x", "boxes": BOXES}),
    }


def run(project, sources, *, name="flickr", changes=None, **overrides):
    arguments = {**sources, **overrides}
    media = arguments.pop("media")
    return import_soundnet_flickr(options(project, name, media, **(changes or {})), **arguments)


def test_card_lists_and_boxes_of_the_official_layout(project, sources):
    report = run(project, sources)
    folder = project / "data_manifests/flickr"
    card = load_card(folder)
    assert (card.image_size, card.evaluation.protocol, card.evaluation.threshold) == (256, "paper256", 0.5)
    assert card.audio.model_dump() == {
        "sample_rate": 22050, "clip_seconds": 5.0, "n_fft": 882, "hop_length": 441, "n_mels": 64, "power": 2.0,
        "log_floor": 1.0e-10,
    }  # fmt: skip
    assert [clip.clip_id for clip in read_clips(folder / "train.csv")] == TRAIN
    clip = read_clips(folder / "test.csv")[0]
    assert (clip.clip_id, clip.frame, clip.audio, clip.video) == ("10", "Data/0/10.jpg", "Data/0/10.wav", "")
    boxes = read_boxes(folder / "test_boxes.csv")
    assert [(b.clip_id, b.source, b.annotator, b.sounding) for b in boxes] == [
        ("10", "annotators", "1", True),
        ("10", "annotators", "2", True),
        ("21", "annotators", "1", True),
    ]
    assert report.used == {"train": 5, "test": 2}


def test_silent_clips_pair_a_frame_with_the_audio_of_another_clip(project, sources, tmp_path):
    silent = write_lines(tmp_path / "silent.csv", ["video,audio,label", "10,21,non-sounding"])
    report = run(project, sources, silent=silent, validation_size=1)
    clips = read_clips(project / "data_manifests/flickr/test_silent.csv")
    assert [(c.clip_id, c.frame, c.audio) for c in clips] == [
        ("10", "Data/0/10.jpg", "Data/0/10.wav"),
        ("21", "Data/1/21.jpg", "Data/1/21.wav"),
        ("silent-10-21", "Data/0/10.jpg", "Data/1/21.wav"),
    ]
    assert report.used == {"train": 5, "test": 2, "validation": 1, "test_silent": 3}
    assert read_splits(project / "data_manifests/flickr").keys() == report.used.keys()
    silent.write_text("10,32\n")  # the only clip that could be held out is used in a silent clip
    with pytest.raises(ManifestError, match=r"validation set of 1 .*only 0"):
        run(project, sources, name="again", silent=silent, validation_size=1)


def test_the_public_integer_grids_come_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.integers(1, 250, size=(300, 2))
    rows = np.concatenate([low, np.minimum(low + rng.integers(1, 200, size=(300, 2)), 256)], axis=1).tolist()
    raw = {str(i): [("1", row)] for i, row in enumerate(rows)}
    checked = fractional_boxes(raw, ImportReport("x"), tmp_path)
    for i, (xmin, ymin, xmax, ymax) in enumerate(rows):
        box = checked[str(i)][0]
        expected, got = np.zeros((256, 256)), np.zeros((256, 256))
        expected[ymin - 1 : ymax - 1, xmin - 1 : xmax - 1] = 1
        x0, y0, x1, y1 = (round(256 * v) for v in (box.x0, box.y0, box.x1, box.y1))
        got[y0:y1, x0:x1] = 1
        np.testing.assert_array_equal(got, expected)
        on_224 = [224 * (round(256 * v) + 1) // 256 for v in (box.x0, box.y0, box.x1, box.y1)]
        assert on_224 == [int(224 * v / 256) for v in (xmin, ymin, xmax, ymax)]


def test_fractions_survive_the_file(project, sources):
    run(project, sources)
    box = read_boxes(project / "data_manifests/flickr/test_boxes.csv")[0]
    assert (box.x0, box.y0, box.x1, box.y1) == (82 / 256, 107 / 256, 166 / 256, 255 / 256)


@pytest.mark.parametrize("one_each", [True, False])
def test_xml_json_and_pickle_give_the_same_boxes(tmp_path, one_each):
    folder = tmp_path / "Annotations"
    folder.mkdir()
    for clip_id, rows in BOXES.items():
        (folder / f"{clip_id}.xml").write_text(flickr_xml(rows, one_each=one_each))
    records = {
        i: {"visual": f"./Dataset/Data/{k[-1]}/{k}.jpg", "anno": np.array(rows).astype("<U3")}
        for i, (k, rows) in enumerate(BOXES.items())
    }
    (tmp_path / "gt.pkl").write_bytes(pickle.dumps(records, protocol=3))
    expected = {k: [(str(i), row) for i, row in enumerate(rows, 1)] for k, rows in BOXES.items()}
    assert read_raw_boxes(folder) == expected
    assert read_raw_boxes(tmp_path / "gt.pkl") == expected
    assert read_raw_boxes(write_json(tmp_path / "b.json", {"boxes": BOXES})) == expected


def test_boxes_of_one_annotator_share_a_number(tmp_path):
    folder = tmp_path / "xml"
    folder.mkdir()
    first, second = BOXES["10"], BOXES["32"]
    both = flickr_xml(first, one_each=False).removesuffix("</annotation>")
    both += flickr_xml(second, one_each=False).removeprefix("<annotation><filename>a.jpg</filename>")
    (folder / "10.xml").write_text(both)
    assert [annotator for annotator, _ in read_raw_boxes(folder)["10"]] == ["1", "1", "2", "2"]


@pytest.mark.parametrize(
    "content",
    [
        "<annotation><obj>",
        "",
    ],
)
def test_broken_xml_is_named(tmp_path, content):
    (tmp_path / "10.xml").write_text(content)
    with pytest.raises(ManifestError, match=r"10.xml: .*XML"):
        read_raw_boxes(tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        [60, 80, 60, 80],
        [0, 1, 5, 5],
        [1, 1, 257, 5],
        [1, 1, 5],
        [1, 1, 5, 5.5],
        [9, 9, 2, 2],
        ["a", 1, 2, 3],
        [1, 1, 5, 1e18],
    ],
    ids=str,
)
def test_faulty_boxes_are_reported_and_left_out(project, sources, tmp_path, row):
    boxes = write_json(tmp_path / "b.json", {"boxes": {**BOXES, "21": [row, [10, 10, 20, 20]]}})
    report = run(project, sources, boxes=boxes)
    assert [(fault.clip_id, fault.box) for fault in report.box_faults] == [("21", tuple(map(str, row)))]
    kept = [b for b in read_boxes(project / "data_manifests/flickr/test_boxes.csv") if b.clip_id == "21"]
    assert len(kept) == 1
    assert any("21: [" in line for line in report.lines())


def test_text_in_xml_that_is_no_number_is_a_fault_of_that_box(project, sources, tmp_path):
    folder = tmp_path / "xml"
    folder.mkdir()
    (folder / "10.xml").write_text(flickr_xml([["a", 1, 2, 3], [1, 1, 9, 9]], one_each=True))
    (folder / "21.xml").write_text(flickr_xml([[1, "", 2, 3]], one_each=True))
    report = run(project, sources, boxes=folder)
    assert {fault.faults for fault in report.box_faults} == {("not four numbers",)}
    assert report.left_out["test"] == {"21": "no usable box"}


def test_flat_media_and_a_video_without_frame_file(project, sources, tmp_path):
    flat = tmp_path / "flat"
    names = [f"frames/{i}.JPG" for i in [*TRAIN, "10", "21"]] + [f"audio/{i}.flac" for i in [*TRAIN, "10", "21"]]
    write_files(flat, names)
    run(project, sources, media=flat)
    assert read_clips(project / "data_manifests/flickr/test.csv")[0].frame == "frames/10.JPG"
    official = tmp_path / "official"
    write_official(official, [*TRAIN, "10"])
    write_files(official, ["Data/1/21.mp4"])
    run(project, sources, media=official, name="second")
    clip = read_clips(project / "data_manifests/second/test.csv")[1]
    assert (clip.video, clip.frame, clip.audio) == ("Data/1/21.mp4", "", "")


def test_unknown_and_ambiguous_layouts_are_refused(project, sources, tmp_path):
    bare = tmp_path / "bare"
    write_files(bare, ["100.jpg", "100.wav"])
    with pytest.raises(ManifestError, match=r"bare: .*none of .*official: Data/\{last\}/<id>.jpg"):
        run(project, sources, media=bare)
    write_files(sources["media"], ["frames/100.jpg", "audio/100.wav"])
    with pytest.raises(ManifestError, match=r"2 layouts.*--layout"):
        run(project, sources)
    run(project, sources, changes={"layout": "official"})
    with pytest.raises(ManifestError, match="none: no such media folder"):
        run(project, sources, media=tmp_path / "none", name="third")


def test_the_coverage_report_names_every_clip_left_out(project, sources, tmp_path):
    media = sources["media"]
    (media / "Data/0/100.wav").unlink()
    (media / "Data/1/111.jpg").unlink()
    (media / "Data/2/122.jpg").write_bytes(b"")
    (media / "Data/3/133.jpg").unlink()
    (media / "Data/3/133.wav").unlink()
    write_files(media, ["Data/4/144.png"])
    train = write_lines(tmp_path / "longer.txt", [*TRAIN, "155", "100"])
    write_official(media, ["155"])
    report = run(project, sources, train_list=train)
    expected = {
        "100": "frame without audio",
        "111": "audio without a frame",
        "122": "empty file",
        "133": "no media",
        "144": "several frames with this id",
    }
    assert report.left_out == {"train": expected}
    assert (report.listed["train"], report.used["train"]) == (6, 1)
    written = json.loads((project / "data_manifests/flickr/import_report.json").read_text())
    assert written["left_out"] == {"train": expected}
    assert written["listed"] == {"train": 6, "test": 2}
    printed = "\n".join(report.lines())
    assert all(reason in printed and clip_id in printed for clip_id, reason in expected.items())
    assert "the training list has 1 duplicate id," in printed


def test_a_training_subset_is_seeded(project, sources):
    run(project, sources, train_size=3, seed=1)
    first = [clip.clip_id for clip in read_clips(project / "data_manifests/flickr/train.csv")]
    assert len(first) == 3
    run(project, sources, train_size=3, seed=1, name="again")
    assert [clip.clip_id for clip in read_clips(project / "data_manifests/again/train.csv")] == first
    draws = set()
    for seed in range(5):
        run(project, sources, train_size=3, seed=seed, name=f"draw{seed}")
        draws.add((project / f"data_manifests/draw{seed}/train.csv").read_text())
    assert len(draws) > 1
    with pytest.raises(ManifestError, match=r"training set of 6 .*only 5"):
        run(project, sources, train_size=6, name="large")


def test_leaks_stop_the_import_by_default(project, sources, tmp_path):
    train = write_lines(tmp_path / "leaky.txt", [*TRAIN, "10"])
    with pytest.raises(ManifestError, match=r"1 training clip .*: 10\. .*--leaks drop"):
        run(project, sources, train_list=train)
    assert not (project / "data_manifests/flickr").exists()
    report = run(project, sources, train_list=train, changes={"leaks": "drop"})
    assert [clip.clip_id for clip in read_clips(project / "data_manifests/flickr/train.csv")] == TRAIN
    assert report.leaks == ["10"]
    assert not load_card(project / "data_manifests/flickr").leaks_allowed
    run(project, sources, train_list=train, changes={"leaks": "keep"}, name="kept")
    assert len(read_clips(project / "data_manifests/kept/train.csv")) == 6
    assert load_card(project / "data_manifests/kept").leaks_allowed


def test_validation_clips_are_annotated_untested_and_untrained(project, sources, tmp_path):
    train = write_lines(tmp_path / "with32.txt", [*TRAIN, "32"])
    report = run(project, sources, train_list=train, validation_size=1)
    folder = project / "data_manifests/flickr"
    assert [clip.clip_id for clip in read_clips(folder / "validation.csv")] == ["32"]
    assert {box.clip_id for box in read_boxes(folder / "validation_boxes.csv")} == {"32"}
    assert "32" not in {clip.clip_id for clip in read_clips(folder / "train.csv")}
    assert report.left_out["train"] == {"32": "held out for validation"}
    with pytest.raises(ManifestError, match=r"validation set of 2 .*only 1"):
        run(project, sources, validation_size=2, name="more")


def test_without_a_test_list_all_annotated_clips_are_tested_on(project, sources):
    assert run(project, sources, test_list=None).used["test"] == 3


def test_checking_needs_no_media_and_writes_nothing(project, sources, tmp_path):
    before = tree(project)
    train = write_lines(tmp_path / "leaky.txt", [*TRAIN, "10"])
    report = run(project, sources, media=tmp_path / "none", train_list=train, changes={"check_only": True})
    assert report.leaks == ["10"]
    assert tree(project) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], r'expected \{"boxes"'),
        ({"boxes": {"x": []}}, "b.json: 'x'"),
        ({"boxes": {"10": [1, 2, 3, 4]}}, "id 10: expected a list"),
        ({"boxes": {}}, "b.json: .*no boxes"),
    ],
)
def test_malformed_json_is_refused(tmp_path, content, message):
    with pytest.raises(ManifestError, match=message):
        read_raw_boxes(write_json(tmp_path / "b.json", content))


def test_malformed_records_are_refused(tmp_path):
    path = tmp_path / "gt.pkl"
    for value, message in [
        ([1], "expected a dict of records"),
        ({0: {"visual": "a/10.jpg"}}, "record 0: expected keys"),
        ({0: {"visual": "a/10.jpg", "anno": np.zeros(4)}}, "record 0: 'anno'"),
        ({i: {"visual": "a/10.jpg", "anno": np.zeros((1, 4))} for i in range(2)}, "record 1: duplicate .*10"),
    ]:
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(ManifestError, match=message):
            read_raw_boxes(path)
    with pytest.raises(ManifestError, match=r"boxes\.txt: .*XML.*\.json.*\.pkl"):
        read_raw_boxes(tmp_path / "boxes.txt")
