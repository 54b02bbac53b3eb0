"""Tagging a split: the label file and its record, resuming, unusable audio, the command, and MSSL trained on the result."""

from __future__ import annotations

import csv
import json
import shutil
import wave
from dataclasses import replace

import numpy as np
import pytest

from pipeline.apps.tag import parts, run
from pipeline.apps.tag.frames import FrameModel
from pipeline.apps.tag.run import Split, tag
from pipeline.apps.tag.sounds import SoundModel
from pipeline.cli.main import soundspot
from pipeline.common.errors import ManifestError, TaggingError
from pipeline.common.files import file_digest, write_csv
from pipeline.manifests.clips import CLIP_COLUMNS
from pipeline.shards.reader import ShardSet
from pipeline.training.class_labels import read_clip_classes
from pipeline.training.train import initialize, train
from tests.apps.tag.test_frames import NAME, write_classifier
from tests.support.feature_world import write_shards
from tests.support.projects import ROOT
from tests.support.synthetic import make_settings
from tests.support.taggers import SINE_MEAN, sharpness, write_onnx_tagger

SECONDS, RATE, TAGGER_RATE = 0.5, 44_100, 16_000
FREQUENCIES = [300 + 400 * number for number in range(9)]
CARD = """title: t
source: s
license: l
media_root: media
image_size: 64
audio: {sample_rate: 16000, clip_seconds: 0.31, n_fft: 400, hop_length: 160, n_mels: 16}
evaluation: {protocol: paper256}
"""


def write_sine(path, frequency):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        times = np.arange(round(SECONDS * RATE)) / RATE
        file.writeframes((12_000 * np.sin(2 * np.pi * frequency * times)).astype("<i2").tobytes())


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Nine clips in two shards, each with a sine of its own; a classifier of frames, a tagger, and groups."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "media").mkdir()
    (tmp_path / "data_manifests/tiny").mkdir(parents=True)
    (tmp_path / "data_manifests/tiny/dataset.yaml").write_text(CARD)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shards = write_shards(tmp_path / "data/tiny/shards/train", counts=(5, 4))
    rows = []
    for clip_id, frequency in zip(shards.clip_ids, FREQUENCIES, strict=True):
        write_sine(tmp_path / f"media/{clip_id}.wav", frequency)
        rows.append(["train", clip_id, "", "x.png", f"{clip_id}.wav", "", ""])
    # The list is not in the order of the shards, and has a clip more: extraction rejected it.
    rows.append(["train", "rejected", "", "x.png", "none.wav", "", ""])
    write_csv(tmp_path / "data/tiny/clips.csv", ["split", *CLIP_COLUMNS], rows[::-1])
    write_classifier(tmp_path / "frames.pth")
    write_onnx_tagger(tmp_path / "tagger.onnx", [1, "n"])
    (tmp_path / "tags.txt").write_text("loud\nsharp\n")
    (tmp_path / "groups.csv").write_text(
        "side,class,group\nseen,0-499,a\nseen,500-999,b\nheard,loud,a\nheard,sharp,b\n"
    )
    return tmp_path


@pytest.fixture
def models(project):
    frames = FrameModel(NAME, str(project / "frames.pth"))
    return {"frames": frames, "sounds": SoundModel(project / "tagger.onnx", project / "tags.txt", TAGGER_RATE)}


def tag_both(project, models, **options):
    options = {"groups": project / "groups.csv", **options}
    return tag(Split(project, "tiny", "train"), project / "labels.csv", **models, **options)


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("in_this_process")
class TestTag:
    def test_the_labels_are_what_each_classifier_says(self, project, models):
        tagged = tag_both(project, models)
        shards = ShardSet.open(project / "data/tiny/shards/train")
        rows = read(project / "labels.csv")
        assert [row["clip_id"] for row in rows] == shards.clip_ids
        assert list(rows[0]) == ["clip_id", "seen:a", "seen:b", "heard:a", "heard:b"]
        expected = models["frames"].load()(shards.read(range(9))[0])[:, 0].reshape(9, 2, 500).sum(axis=2)
        seen = np.array([[float(row["seen:a"]), float(row["seen:b"])] for row in rows])
        np.testing.assert_allclose(seen, expected, atol=1e-3)
        assert np.ptp(seen[:, 0]) > 0.01
        heard = np.array([[float(row["heard:a"]), float(row["heard:b"])] for row in rows])
        of_sines = [[SINE_MEAN, sharpness(frequency, TAGGER_RATE)] for frequency in FREQUENCIES]
        np.testing.assert_allclose(heard, of_sines, atol=0.01)
        assert (tagged.n_clips, tagged.groups, tagged.rejected, tagged.kept) == (9, ("a", "b"), {}, False)
        assert tagged.present["heard"] == [9, 0]

    def test_the_record_says_what_made_it(self, project, models):
        tag_both(project, models)
        record = json.loads((project / "labels.csv.json").read_text())
        assert record["sha256"] == file_digest(project / "labels.csv")
        assert record["sides"]["seen"]["classifier"]["name"] == NAME
        assert record["sides"]["heard"]["members"] == {"a": [0], "b": [1]}
        assert record["sides"]["heard"]["classifier"]["path"] == "tagger.onnx"
        assert str(project) not in (project / "labels.csv.json").read_text()
        assert not (project / "labels.csv.parts").exists()

    def test_of_several_tiles_the_largest_probability_of_a_group_counts(self, project, models):
        frames = replace(models["frames"], tiles=2)
        path = tag_both(project, {"frames": frames}).path
        pixels = ShardSet.open(project / "data/tiny/shards/train").read(range(9))[0]
        expected = frames.load()(pixels).reshape(9, 4, 2, 500).sum(axis=3).max(axis=1)
        found = np.array([[float(row["a"]), float(row["b"])] for row in read(path)])
        np.testing.assert_allclose(found, expected, atol=1e-3)

    def test_one_classifier_gives_one_target(self, project, models):
        tag_both(project, {"frames": models["frames"]})
        found = read_clip_classes(project / "x", "train", ["clip-0002"], label_file=project / "labels.csv")
        assert found.names == ("a", "b")
        np.testing.assert_array_equal(found.targets[:, 0], found.targets[:, 1])
        assert list(read(project / "labels.csv")[0]) == ["clip_id", "a", "b"]

    def test_an_interrupted_run_resumes(self, project, models, monkeypatch):
        whole = tag_both(project, models).path.read_bytes()
        for path in project.glob("labels.csv*"):
            path.unlink()
        done = []

        def stop_after_two(task):
            if len(done) == 2:
                raise KeyboardInterrupt
            parts.write_part(task)
            done.append(task.path)

        with monkeypatch.context() as patch:
            patch.setattr(run, "write_part", stop_after_two)
            with pytest.raises(KeyboardInterrupt):
                tag_both(project, models)
        assert not (project / "labels.csv").exists()
        # One of the two is damaged meanwhile.
        damaged = done[1].read_bytes()
        done[1].write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
        written = []
        with monkeypatch.context() as patch:
            patch.setattr(run, "write_part", lambda task: (written.append(task.path), parts.write_part(task)))
            tag_both(project, models)
        assert len(written) == 3
        assert done[0] not in written
        assert (project / "labels.csv").read_bytes() == whole

    def test_a_finished_file_is_kept_and_never_replaced_unasked(self, project, models):
        path = tag_both(project, models).path
        assert tag_both(project, models).kept
        with pytest.raises(TaggingError, match=r"labels\.csv: .*--overwrite"):
            tag_both(project, {**models, "frames": replace(models["frames"], tiles=2)})
        path.write_text(path.read_text().replace("0.6", "0.5"))
        with pytest.raises(TaggingError, match="changed afterwards"):
            tag_both(project, models)
        assert not tag_both(project, models, overwrite=True).kept
        assert tag_both(project, models).kept
        (project / "labels.csv.json").unlink()
        with pytest.raises(TaggingError, match=r"no record \(labels\.csv\.json\)"):
            tag_both(project, models)

    def test_unusable_audio_is_recorded_and_unknown(self, project, models):
        (project / "media/clip-0003.wav").write_bytes(b"not audio")
        tagged = tag(
            Split(project, "tiny", "train", max_reject_fraction=0.2),
            project / "labels.csv",
            **models,
            groups=project / "groups.csv",
        )
        assert list(tagged.rejected) == ["clip-0003"]
        assert "clip-0003.wav" in json.loads((project / "labels.csv.json").read_text())["rejected"]["clip-0003"]
        row = read(project / "labels.csv")[3]
        assert (row["clip_id"], row["heard:a"], row["heard:b"]) == ("clip-0003", "", "")
        targets = read_clip_classes(project, "train", ["clip-0003"], label_file=tagged.path).targets
        assert np.isnan(targets[0, 1]).all()
        assert not np.isnan(targets[0, 0]).any()

    @pytest.mark.parametrize("sides", [("frames", "sounds"), ("sounds",)])
    def test_too_much_unusable_audio_is_an_error_that_names_a_clip(self, project, models, sides):
        (project / "media/clip-0003.wav").unlink()
        with pytest.raises(TaggingError, match=r"1 of 9 clips.*'clip-0003'.*kept"):
            tag_both(project, {side: models[side] for side in sides})
        # The parts are kept, and the label file is not there.
        assert len(list((project / "labels.csv.parts").glob("*.h5"))) == 2 * len(sides)
        assert not (project / "labels.csv").exists()

    def test_classes_of_both_sides_must_agree(self, project, models):
        with pytest.raises(TaggingError, match=r"one side.*--groups"):
            tag_both(project, models, groups=None)

    def test_a_clip_list_without_a_clip_of_the_shards(self, project, models):
        path = project / "data/tiny/clips.csv"
        path.write_text("".join(line for line in path.open() if "clip-0001" not in line))
        with pytest.raises(TaggingError, match=r"clips\.csv.*'clip-0001'"):
            tag_both(project, models)
        path.unlink()
        with pytest.raises(ManifestError, match=r"clips\.csv"):
            tag_both(project, models)

    def test_mssl_trains_on_the_file(self, project, models):
        """Stage I and II, with a clip whose audio is unknown; the targets are part of the run's fingerprint."""
        (project / "media/clip-0003.wav").write_bytes(b"not audio")
        split = Split(project, "tiny", "train", max_reject_fraction=0.2)
        path = tag(split, project / "labels.csv", **models, groups=project / "groups.csv").path
        shards = ShardSet.open(project / "data/tiny/shards/train")
        initialize(shards, project / "initialize", settings=make_settings(batch_size=4), seeds=[0], device="cpu")
        fingerprints = []
        for number in range(2):
            settings = make_settings(batch_size=4, methods={"mssl": {"label_file": str(path), "epochs": 2}})
            folder = project / f"mssl{number}"
            train(shards, project / "initialize", folder, method="mssl", settings=settings, seeds=[0], device="cpu")
            losses = [float(row["loss"]) for row in read(folder / "history.csv") if row["loss"]]
            assert len(losses) == 2
            assert np.isfinite(losses).all()
            fingerprints.append(json.loads((folder / ".record.json").read_text())["files"]["model.pt"])
            # What is heard changes: another run.
            rows = read(path)
            write_csv(path, list(rows[0]), [[*list(row.values())[:3], "1", "0"] for row in rows])
        assert fingerprints[0] != fingerprints[1]


class TestCommand:
    @pytest.mark.usefixtures("in_this_process")
    def test_frames_and_sounds(self, project, cli):
        shown = cli(
            f"tag --dataset tiny --frames {NAME} --weights frames.pth --sounds tagger.onnx --sound-labels tags.txt "
            f"--sample-rate {TAGGER_RATE} --groups groups.csv -o labels.csv --device cpu"
        )
        assert "wrote labels.csv (9 clips, 2 classes)" in shown.output
        assert "heard" in shown.output
        again = cli(
            f"tag --dataset tiny --frames {NAME} --weights frames.pth --sounds tagger.onnx --sound-labels tags.txt "
            f"--sample-rate {TAGGER_RATE} --groups groups.csv -o labels.csv --device cpu"
        )
        assert "labels.csv: unchanged" in again.output

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("-o labels.csv", "--frames, --sounds"),
            ("--sounds tagger.onnx -o labels.csv", "--sound-labels"),
            (f"--frames {NAME} --tiles 0 -o labels.csv", "--tiles"),
        ],
    )
    def test_wrong_options(self, project, cli, words, message):
        shown = cli(f"tag --dataset tiny {words}", code=2)
        assert message in shown.output

    def test_errors_of_users(self, project, models):
        with pytest.raises(TaggingError, match=r"labels\.txt.*\.csv"):
            tag(Split(project, "tiny", "train"), project / "labels.txt", frames=models["frames"])
        with pytest.raises(TaggingError, match="--frames"):
            tag(Split(project, "tiny", "train"), project / "labels.csv")

    @pytest.mark.slow  # starts workers, which import timm
    def test_workers_write_the_same(self, project, models, monkeypatch):
        path = tag_both(project, models, workers=2).path
        content = path.read_bytes()
        shutil.move(path, project / "first.csv")
        monkeypatch.setattr(
            run,
            "run_tasks",
            lambda function, tasks, **_: ((number, function(*task)) for number, task in enumerate(tasks)),
        )
        assert tag_both(project, models).path.read_bytes() == content


@pytest.fixture
def cli():
    from click.testing import CliRunner

    def call(words, *, code=0):
        result = CliRunner().invoke(soundspot, words.split())
        assert result.exit_code == code, result.output
        return result

    return call
