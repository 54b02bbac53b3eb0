"""Mosaics of generated photographs and recordings: a color tells class and number, a pitch tells the class."""

import csv
import re
import shutil
import wave
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import ImportOptions
from pipeline.datasets.mosaics.build import AUDIO, MosaicSettings, import_mosaics
from pipeline.datasets.mosaics.classes import CLASS_MAP, read_class_map
from pipeline.datasets.mosaics.compose import loudest_window
from pipeline.datasets.mosaics.files import Source
from pipeline.datasets.mosaics.schedule import draw_mosaics
from pipeline.datasets.mosaics.split import SPLITS, split_sources
from pipeline.extraction.extract import extract_split
from pipeline.manifests.boxes import read_boxes
from pipeline.manifests.clips import read_clips
from pipeline.shards.reader import ShardSet
from tests.support.importing import make_project, tree
from tests.support.projects import ROOT
from tests.support.splits import listed

pytestmark = pytest.mark.usefixtures("one_worker")

RATE, SECONDS, N_FILES = 8000, 3, 6
PITCH = {"ape": 200, "bee": 500, "cat": 900, "dog": 1400, "emu": 2000, "fox": 2700}  # Hz, below 4 kHz
LABELS = list(PITCH)
WIDTH, HEIGHT = 40, 30
BOX = (10, 15, 30, 30)  # pixels of each photograph
SETTINGS = MosaicSettings(train=36, validation=12, test=24)


def write_photograph(path: Path, label: str, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    color = (40 * LABELS.index(label), 20 * number, 77)
    Image.new("RGB", (WIDTH, HEIGHT), color).save(path)


def write_recording(path: Path, label: str, number: int, *, seconds: float = SECONDS) -> None:
    """A sine for most of the time, louder in files of higher numbers, and digital silence at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.1 * (number + 1) * np.sin(2 * np.pi * PITCH[label] * time) * (time < 0.8 * seconds)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 32767).astype("<i2").tobytes())


def write_folders(folder: Path, labels: list[str] = LABELS, *, count: int = N_FILES, first: int = 0) -> None:
    for label in labels:
        for number in range(first, first + count):
            write_photograph(folder / f"photos/{label}/{number}.png", label, number)
            write_recording(folder / f"sounds/{label}/{number}.wav", label, number)


def write_boxes_file(path: Path, rows: list[tuple]) -> None:
    path.write_text("image,class,x0,y0,x1,y1\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))


def run_import(folder: Path, project: Path, *, settings: MosaicSettings = SETTINGS, **changes) -> ImportReport:
    if not project.exists():
        make_project(project)
    own = {"force": True, **{name: changes.pop(name) for name in ("force", "check_only") if name in changes}}
    options = ImportOptions("m", project / "media", project, **own)
    given = {"photos": folder / "photos", "sounds": folder / "sounds", **changes}
    return import_mosaics(options, settings=settings, **given)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of six files each; half of the photographs have a box."""
    folder = tmp_path_factory.mktemp("files")
    write_folders(folder)
    write_boxes_file(folder / "boxes.csv", [(f"photos/{x}/{n}.png", x, *BOX) for x in LABELS for n in range(0, 6, 2)])
    return folder


@pytest.fixture(scope="module")
def built(files: Path, tmp_path_factory: pytest.TempPathFactory, one_worker: None) -> Path:
    project = tmp_path_factory.mktemp("built") / "project"
    run_import(files, project)
    return project


def table(project: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of mosaics.csv by clip."""
    rows = defaultdict(list)
    with open(project / "media/mosaics.csv", newline="") as file:
        for row in csv.DictReader(file):
            rows[row["clip_id"]].append(row)
    return rows


def split_of(clip_id: str) -> str:
    return clip_id.split("-")[0]


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, AUDIO.sample_rate)
        return np.frombuffer(file.readframes(10**7), "<i2") / 32767


def power_at(sound: np.ndarray, pitch: float) -> float:
    time = np.arange(len(sound)) / AUDIO.sample_rate
    return float(abs((sound * np.exp(-2j * np.pi * pitch * time)).mean()) ** 2)


def test_clips_show_and_sound_like_the_files_that_the_table_names(built: Path) -> None:
    rows = table(built)
    assert Counter(map(split_of, rows)) == {"train": 36, "validation": 12, "test": 24}
    for split in SPLITS:
        for clip in read_clips(built / f"data_manifests/m/{split}.csv"):
            image = np.asarray(Image.open(built / "media" / clip.frame))
            assert image.shape == (384, 384, 3)
            sound = read_wav(built / "media" / clip.audio)
            cells = rows[clip.clip_id]
            assert len({row["class"] for row in cells}) == 4
            for row in cells:
                y, x = divmod(int(row["cell"]), 2)
                label, number = row["photograph"].removesuffix(".png").split("/")
                cell = image[192 * y : 192 * y + 192, 192 * x : 192 * x + 192]
                assert (cell == (40 * LABELS.index(label), 20 * int(number), 77)).all()
                assert row["class"] == label
            (sounding,) = [row for row in cells if row["sounding"] == "1"]
            assert clip.label == sounding["class"] == sounding["recording"].split("/")[0]
            assert len(sound) == 2 * AUDIO.sample_rate
            assert max(PITCH, key=lambda label: power_at(sound, PITCH[label])) == clip.label
            assert np.square(sound).mean() > 0.05  # peak 1 and never silent, although the recordings end in silence


def test_boxes_are_those_of_the_photographs_or_whole_cells(built: Path) -> None:
    assert not (built / "data_manifests/m/train_boxes.csv").exists()
    rows = table(built)
    for split in ("validation", "test"):
        boxes = {(box.clip_id, box.source): box for box in read_boxes(built / f"data_manifests/m/{split}_boxes.csv")}
        cells = [row for clip_id in rows if split_of(clip_id) == split for row in rows[clip_id]]
        assert len(boxes) == len(cells)
        for row in cells:
            box = boxes[row["clip_id"], row["class"]]
            top, left = (part / 2 for part in divmod(int(row["cell"]), 2))
            number = int(row["photograph"].split("/")[1].removesuffix(".png"))
            x0, y0, x1, y1 = (0, 0, 1, 1) if number % 2 else (0.25, 0.5, 0.75, 1)
            expected = (left + x0 / 2, top + y0 / 2, left + x1 / 2, top + y1 / 2)
            assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(expected, abs=1e-6)
            assert (box.annotator, box.sounding) == ("cell" if number % 2 else "given", row["sounding"] == "1")


def test_no_file_is_in_two_splits_and_use_is_balanced(built: Path) -> None:
    cells = [row for rows in table(built).values() for row in rows]
    for column in ("photograph", "recording"):
        splits = defaultdict(set)
        for row in cells:
            splits[row[column]].add(split_of(row["clip_id"]))
        assert all(len(names) == 1 for name, names in splits.items() if name)
        assert Counter(next(iter(names)) for name, names in splits.items() if name) == {
            "train": 24,
            "validation": 6,
            "test": 6,
        }
    for split in SPLITS:
        own = [row for row in cells if split_of(row["clip_id"]) == split]
        sounding = [row for row in own if row["sounding"] == "1"]
        for counted in (Counter(row["class"] for row in sounding), Counter(row["cell"] for row in sounding)):
            assert max(counted.values()) - min(counted.values()) <= 1
        assert len(Counter(row["class"] for row in sounding)) == len(LABELS)
        for column, part in (("photograph", own), ("recording", sounding)):
            for label in LABELS:
                used = Counter(row[column] for row in part if row["class"] == label)
                assert max(used.values()) - min(used.values()) <= 1


def test_media_of_another_dataset_or_of_the_user_are_not_replaced(built: Path, files: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(built, project)
    before = tree(project)
    options = ImportOptions("other", project / "media", project)
    with pytest.raises(ManifestError, match=r"media: has the media of the dataset m, .*--media"):
        import_mosaics(options, settings=SETTINGS, photos=files / "photos", sounds=files / "sounds")
    assert tree(project) == before

    (project / "mine/audio").mkdir(parents=True)
    (project / "mine/audio/train-000007.wav").write_bytes(b"mine")
    options = ImportOptions("other", project / "mine", project)
    with pytest.raises(ManifestError, match=r"train-000007\.wav: exists, and would be replaced or removed"):
        import_mosaics(options, settings=SETTINGS, photos=files / "photos", sounds=files / "sounds")
    assert (project / "mine/audio/train-000007.wav").read_bytes() == b"mine"


def test_same_files_give_the_same_bytes_anywhere_and_another_seed_other_ones(
    built: Path, files: Path, tmp_path: Path
) -> None:
    shutil.copytree(files, tmp_path / "elsewhere")
    run_import(tmp_path / "elsewhere", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(built)
    run_import(files, tmp_path / "again", settings=MosaicSettings(train=4, validation=4, test=4, seed=1))
    changed = tree(tmp_path / "again")
    # Nothing is left of the larger set; mosaics.csv and the owner are there.
    assert len([name for name in changed if name.startswith("media/")]) == 2 * 12 + 2
    assert changed["media/audio/test-00000.wav"] != tree(built)["media/audio/test-00000.wav"]
    assert (
        load_card(built / "data_manifests/m").media_fingerprint
        != load_card(tmp_path / "again/data_manifests/m").media_fingerprint
    )


def test_extraction_reads_the_clips(built: Path, tmp_path: Path) -> None:
    card = load_card(built / "data_manifests/m")
    assert (card.image_size, card.evaluation.grid, card.evaluation.protocol) == (384, 2, "paper256")
    clips = read_clips(built / "data_manifests/m/test.csv")[:6]
    summary = extract_split(
        listed(tmp_path / "clips.csv", clips), "train", media_root=built / "media", folder=tmp_path / "shards", audio=card.audio, image_size=card.image_size,
        clips_per_shard=100, max_reject_fraction=0.0, clip_time_limit_s=30.0, scheduler=None, workers=1,
    )  # fmt: skip
    assert summary.n_rejected == 0
    frames, log_mel = ShardSet.open(tmp_path / "shards").read(range(len(clips)))
    np.testing.assert_array_equal(frames[0], np.asarray(Image.open(built / "media" / clips[0].frame)))
    assert log_mel.shape[1:] == (64, 101)
    assert log_mel.std(axis=(1, 2)).min() > 0.1


def test_two_recordings_are_mixed_at_equal_energy(files: Path, tmp_path: Path) -> None:
    run_import(files, tmp_path / "two", settings=MosaicSettings(train=0, validation=0, test=8, sounding=2))
    for clip in read_clips(tmp_path / "two/data_manifests/m/test.csv"):
        sound = read_wav(tmp_path / "two/media" / clip.audio)
        labels = clip.label.split("+")
        assert len(labels) == 2
        starts = {
            row["class"]: float(row["start_s"]) for row in table(tmp_path / "two")[clip.clip_id] if row["start_s"]
        }
        # A sine that ends before its window does is louder there; its energy over the window is the same.
        lengths = {label: min(2.0, 0.8 * SECONDS - starts[label]) for label in labels}
        powers = [power_at(sound, PITCH[label]) / lengths[label] for label in labels]
        assert powers[0] == pytest.approx(powers[1], rel=0.05)
    truth = read_boxes(tmp_path / "two/data_manifests/m/test_boxes.csv")
    assert Counter(box.clip_id for box in truth if box.sounding) == {f"test-{i:05d}": 2 for i in range(8)}


def test_a_grid_that_does_not_divide_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.datasets.mosaics.build.IMAGE_SIZE", 256)
    names = [*LABELS, "gnu", "hen", "ibis"]
    for label in names:
        for number in range(3):
            path = tmp_path / f"photos/{label}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (25 * names.index(label), 10 * number, 0)).save(path)
            write_recording(tmp_path / f"sounds/{label}/{number}.wav", LABELS[number], names.index(label))
    run_import(tmp_path, tmp_path / "nine", settings=MosaicSettings(train=0, validation=0, test=3, grid=3))
    for box in read_boxes(tmp_path / "nine/data_manifests/m/test_boxes.csv"):
        image = np.asarray(Image.open(tmp_path / f"nine/media/frames/{box.clip_id}.png"))
        assert image.shape == (256, 256, 3)
        center = image[int(128 * (box.y0 + box.y1)), int(128 * (box.x0 + box.x1))]
        assert center[0] == 25 * names.index(box.source)
    assert load_card(tmp_path / "nine/data_manifests/m").evaluation.grid == 3


def write_official(folder: Path, project: Path) -> None:
    """Tiny-ImageNet and ESC-50 with the classes of `PITCH`, and one class more on either side."""
    entries = []
    for index, label in enumerate(LABELS):
        wnid = f"n0000000{index}"
        entries.append(f"{label}: {{tiny_imagenet: [{wnid}], esc50: [{label}_sounds]}}")
        for number in range(5):
            write_photograph(folder / f"photos/train/{wnid}/images/{wnid}_{number}.JPEG", label, number)
        rows = [f"{wnid}_{number}.JPEG\t0\t0\t20\t15" for number in range(5)]
        (folder / f"photos/train/{wnid}/{wnid}_boxes.txt").write_text("\n".join(rows) + "\n")
    write_photograph(folder / "photos/train/n99999999/images/n99999999_0.JPEG", "ape", 7)
    clips = [
        (f"{fold}-{label}{fold}-{take}", fold, label) for label in range(6) for fold in range(1, 6) for take in "AB"
    ]
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for clip, fold, label in clips:
        name = f"{clip.replace('-', '-1000', 1)}-{label}.wav"
        write_recording(folder / "sounds/audio" / name, LABELS[label], fold, seconds=2.5)
        lines.append(f"{name},{fold},{label},{LABELS[label]}_sounds,False,1000{label}{fold},{clip[-1]}")
    write_recording(folder / "sounds/audio/1-7-A-9.wav", "ape", 0)
    lines.append("1-7-A-9.wav,1,9,rain,False,7,A")
    (folder / "sounds/meta").mkdir()
    (folder / "sounds/meta/esc50.csv").write_text("\n".join(lines) + "\n")
    (project / "data_manifests").mkdir(exist_ok=True)
    (project / "data_manifests/mosaic_classes.yaml").write_text("\n".join(entries) + "\n")


def test_official_layouts(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    write_official(tmp_path, project)
    report = run_import(tmp_path, project, settings=MosaicSettings(train=12, validation=12, test=12))
    folds = defaultdict(set)
    for clip_id, rows in table(project).items():
        for row in rows:
            assert row["photograph"].split("/")[1] == f"n0000000{LABELS.index(row['class'])}"
            if row["recording"]:
                folds[split_of(clip_id)].add(Path(row["recording"]).name.split("-")[0])
    assert folds == {"train": {"1", "2", "3"}, "validation": {"4"}, "test": {"5"}}
    assert {box.annotator for box in read_boxes(project / "data_manifests/m/test_boxes.csv")} == {"given"}
    assert report.n_boxes == 30
    labels = {clip.label for clip in read_clips(project / "data_manifests/m/test.csv")}
    assert labels == set(LABELS)


def test_the_committed_class_map() -> None:
    class_map = read_class_map(ROOT / CLASS_MAP)
    assert set(class_map.tiny_imagenet.values()) == set(class_map.esc50.values())
    assert {"dog", "cat", "bird", "cow", "sheep", "frog", "pig", "insect"} <= set(class_map.esc50.values())
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in class_map.tiny_imagenet)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog: [n1]\n", "expected CLASS"),
        ("a: &a {tiny_imagenet: [], esc50: [dog]}\nb: *a\n", "'dog' is in the classes 'a' and 'b'"),
    ],
)
def test_malformed_class_maps(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_class_map(tmp_path / "map.yaml")


def test_a_recording_in_two_folds_is_an_error(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    write_official(tmp_path, project)
    path = tmp_path / "sounds/meta/esc50.csv"
    path.write_text(path.read_text() + "2-7-B-9.wav,2,9,rain,False,7,B\n")
    with pytest.raises(ManifestError, match="recording 7 is in folds 1 and 2"):
        run_import(tmp_path, project)


def test_a_test_set_of_its_own(files: Path, tmp_path: Path) -> None:
    write_folders(tmp_path, count=4)  # files 0 to 3 are copies of files in `files`
    write_folders(tmp_path, count=2, first=10)
    report = run_import(tmp_path, tmp_path / "p", test_photos=files / "photos", test_sounds=files / "sounds")
    used = defaultdict(set)
    for clip_id, rows in table(tmp_path / "p").items():
        for row in rows:
            used[split_of(clip_id)] |= {row["photograph"], row["recording"]} - {""}
    assert len(used["test"]) == 6 * N_FILES + SETTINGS.test  # all photographs, and a recording for each clip
    assert all(name.startswith("test:") for name in used["test"])
    assert {Path(name).stem for name in used["train"] | used["validation"]} == {"10", "11"}
    assert {len(report.left_out[what]) for what in ("photographs", "recordings")} == {24}
    assert report.left_out["photographs"]["ape/0.png"] == "the same bytes as test:ape/0.png"


def test_unusable_files_are_reported_and_left_out(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    (tmp_path / "photos/ape/broken.jpg").write_bytes(b"\xff\xd8\xff damaged")
    (tmp_path / "photos/ape/notes.txt").write_text("no image")
    (tmp_path / "photos/ape/gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "photos/ape/.hidden").write_text("not looked at")
    (tmp_path / "sounds/bee/broken.mp3").write_bytes(b"no audio")
    write_recording(tmp_path / "sounds/bee/silent.wav", "bee", -1)
    shutil.copy(tmp_path / "sounds/cat/0.wav", tmp_path / "sounds/cat/copy.wav")
    write_boxes_file(
        tmp_path / "boxes.csv", [("photos/dog/0.png", "dog", 5, 5, 5, 9), ("photos/dog/1.png", "dog", *BOX)]
    )
    report = run_import(tmp_path, tmp_path / "p")
    assert set(report.left_out["photographs"]) == {"ape/broken.jpg", "ape/gone.png", "ape/notes.txt", "dog/0.png"}
    assert set(report.left_out["recordings"]) == {"bee/broken.mp3", "bee/silent.wav", "cat/copy.wav"}
    assert not any(str(tmp_path) in reason for part in report.left_out.values() for reason in part.values())
    assert [fault.clip_id for fault in report.box_faults] == ["dog/0.png"]
    used = {
        row[column] for rows in table(tmp_path / "p").values() for row in rows for column in ("photograph", "recording")
    }
    assert not used & {name for part in report.left_out.values() for name in part}


def test_a_class_without_files_is_named(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    for number in range(5):
        (tmp_path / f"sounds/emu/{number}.wav").unlink()
    with pytest.raises(ManifestError, match="emu has 4 photographs and 0 recordings for train"):
        run_import(tmp_path, tmp_path / "p")
    assert not (tmp_path / "p/media").exists()
    shutil.rmtree(tmp_path / "sounds/emu")
    with pytest.raises(ManifestError, match="emu has 4 photographs and 0 recordings"):
        run_import(tmp_path, tmp_path / "p", check_only=True)
    report = run_import(tmp_path, tmp_path / "p", classes=["Ape", "bee", "cat", "dog"], check_only=True)
    assert any("emu, fox" in note for note in report.notes)
    assert not (tmp_path / "p/data_manifests").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"photos": Path("nowhere")}, "nowhere: no such folder"),
        ({"classes": ["ape", "bee"]}, "2 .ape, bee."),
        ({"classes": ["ape", "bee", "cat", "yak"]}, "yak has 0 photographs and 0 recordings"),
        ({"settings": MosaicSettings(sounding=4)}, "sounding 4"),
        ({"settings": MosaicSettings(shares=(0.0, 0.5, 0.5))}, r"\(0.0, 0.5, 0.5\)"),
        ({"settings": MosaicSettings(train=0, validation=0, test=0)}, "'train': 0"),
    ],
)
def test_impossible_settings_are_an_error(files: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        run_import(files, tmp_path / "p", **changes)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("photos/ape/0.png", "ape", 0.1, 0.1, 0.9, 1), "fractions"),
        (("ape/0.png", "ape", *BOX), "none of the photographs"),
    ],
)
def test_other_box_files_are_an_error(files: Path, tmp_path: Path, row: tuple, message: str) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    write_boxes_file(tmp_path / "boxes.csv", [row])
    with pytest.raises(ManifestError, match=message):
        run_import(tmp_path, tmp_path / "p")


@given(
    n_files=st.lists(st.integers(1, 5), min_size=4, max_size=9),
    seed=st.integers(0, 2**32),
    count=st.integers(1, 40),
    sounding=st.integers(1, 2),
)
def test_draws_are_balanced_and_prefixes_of_longer_ones(
    n_files: list[int], seed: int, count: int, sounding: int
) -> None:
    numbers = iter(range(100))
    files = {f"c{index}": [next(numbers) for _ in range(n)] for index, n in enumerate(n_files)}
    given = {"split": "test", "seed": seed, "grid": 2, "sounding": sounding}
    drawn = draw_mosaics(files, files, count=count, **given)
    assert drawn == draw_mosaics(files, files, count=count + 7, **given)[:count]
    places = Counter(place for each in drawn for place, cell in enumerate(each.cells) if cell.recording is not None)
    loud = Counter(cell.label for each in drawn for cell in each.cells if cell.recording is not None)
    for used, names in ((places, range(4)), (loud, files)):
        assert max(used.values()) - min(used[name] for name in names) <= 1
    for each in drawn:
        assert len({cell.label for cell in each.cells}) == 4
        assert sum(cell.recording is not None for cell in each.cells) == sounding
        assert all(cell.photograph in files[cell.label] for cell in each.cells)


@given(
    recordings=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), min_size=1, max_size=30, unique=True),
    shares=st.tuples(st.floats(0.1, 1), st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 100),
    n_test=st.integers(0, 3),
)
def test_splits_share_no_recording(
    tmp_path_factory: pytest.TempPathFactory,
    recordings: list[tuple[int, int]],
    shares: tuple[float, float, float],
    seed: int,
    n_test: int,
) -> None:
    """Also if a recording has clips in several classes."""
    folder = tmp_path_factory.mktemp("r")
    sources = []
    for index, (label, recording) in enumerate(recordings):
        path = folder / str(index)
        path.write_bytes(bytes([index]))
        sources.append(Source(path, f"{index}", f"c{label}", recording=f"r{recording}"))
    report = ImportReport("x")
    test = sources[:n_test] if n_test else None
    parts = split_sources(
        sources[n_test:],
        test,
        shares=dict(zip(SPLITS, shares, strict=True)),
        seed=seed,
        what="recordings",
        report=report,
    )
    heard = [{source.recording for source in parts[split]} for split in SPLITS]
    assert len(set.union(*heard)) == sum(map(len, heard))
    names = [source.name for part in parts.values() for source in part]
    assert sorted([*names, *report.left_out.get("recordings", {})]) == sorted(source.name for source in sources)
    assert n_test == 0 or parts["test"] == test
    assert shares[1] > 0 or not parts["validation"]


def test_every_split_gets_a_file_of_a_class_with_three(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}").write_text(f"{number}")
    sources = [Source(tmp_path / f"{number}", f"{number}", "c") for number in range(3)]
    shares = dict(zip(SPLITS, (0.98, 0.01, 0.01), strict=True))
    parts = split_sources(sources, None, shares=shares, seed=0, what="photographs", report=ImportReport("x"))
    assert [len(parts[split]) for split in SPLITS] == [1, 1, 1]


def test_a_window_is_never_silent() -> None:
    wave_ = np.zeros(100_000, np.float32)
    wave_[70_000:70_100] = 0.5
    for seed in range(20):
        start, window = loudest_window(wave_, 1000, np.random.default_rng(seed))
        assert np.square(window).sum() >= 1e-3 * 25
        np.testing.assert_array_equal(window, wave_[start : start + 1000])
    start, window = loudest_window(wave_[69_990:70_200], 1000, np.random.default_rng(0))
    assert (start, len(window)) == (0, 1000)
    np.testing.assert_array_equal(window[210:], 0)


def test_a_second_import_needs_no_force_unless_it_changes_something(built: Path, files: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(built, project)
    before = tree(project)
    assert run_import(files, project, force=False).unchanged
    assert tree(project) == before
    with pytest.raises(ManifestError, match=r"media: .*--force"):
        run_import(files, project, settings=replace(SETTINGS, seed=9), force=False)
    assert tree(project) == before
