"""Evaluation: perfect and useless models, shuffled audio, means over seeds, and the files that come out."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.apps.compare.rescore import rescore
from pipeline.common.config import EvaluationSettings
from pipeline.common.errors import EvaluationError, TrainingError
from pipeline.common.files import file_digest, write_csv
from pipeline.common.project import CALIBRATION_FILE
from pipeline.evaluation import calibration
from pipeline.evaluation import response_maps as model_maps
from pipeline.evaluation.calibration import read_calibration
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.response_maps import derangement
from pipeline.manifests.boxes import read_prior_boxes, read_split_boxes, write_boxes
from pipeline.manifests.clips import CLIP_COLUMNS, Clip, clip_row
from pipeline.scoring.baselines import evaluate_content_free
from pipeline.scoring.map_file import read_maps
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.summary import scoring_rules
from pipeline.training.history import start_row, write_history
from tests.support.mutations import edited
from tests.support.scored_world import boxes_of, make_manifest, make_split, mask

CLIPS = [f"test-{i:02d}" for i in range(10)]
METRICS = ("success_rate", "auc", "mean_ciou", "mean_iou", "pointing_accuracy")
RULE = EvaluationSettings(protocol="paper256", threshold=0.5)
NOISE_PEAKS = {"hiss": np.full(4, 0.25), "hum": np.full(4, 0.5)}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Shards, a manifest, baselines, and models that say which seed they are; their maps come from `respond`."""
    shards = make_split(tmp_path / "shards" / "test", CLIPS)
    manifest = make_manifest(tmp_path / "manifest", CLIPS, elsewhere=["validation-01", "validation-03"])
    for folder in (tmp_path / "runs" / "ours", tmp_path / "runs" / "ours" / "seed_7"):
        folder.mkdir(parents=True)
        (folder / "model.pt").write_text("")
    (tmp_path / "baselines.json").write_text("{}")
    description = {"image_size": shards.image_size, "audio": {}}

    def load(path):
        name = path.parent.name
        seed = int(name.removeprefix("seed_")) if name.startswith("seed_") else SEED
        model = Model(name)
        model.description = {**description, "seed": seed}
        return model

    monkeypatch.setattr(model_maps, "load_model", load)
    monkeypatch.setattr(calibration, "noise_peaks", lambda path, shards, *, device: NOISE_PEAKS)
    return World(tmp_path, shards, manifest, monkeypatch)


SEED = 3  # of the first training run


class Model(str):
    """A trained model that is only a name; `World.respond` defines its maps."""

    normalization = None
    maps_of = None

    def response_maps(self, shards, *, batch_size, device, audio_order=None):
        order = range(len(shards)) if audio_order is None else audio_order
        return np.stack([self.maps_of(str(self), i, j) for i, j in enumerate(order)]).astype(np.float32)


class World:
    def __init__(self, folder, shards, manifest, monkeypatch):
        self.folder, self.shards, self.manifest, self.monkeypatch = folder, shards, manifest, monkeypatch

    def respond(self, maps_of):
        """Let the model `name` answer frame i, given the sound of clip j, with maps_of(name, i, j)."""
        self.monkeypatch.setattr(Model, "maps_of", staticmethod(maps_of))

    def evaluate(self, *, seeds=(SEED,), settings=RULE, **further) -> dict:
        evaluate(
            self.folder / "runs" / "ours",
            self.shards,
            self.manifest,
            self.folder / "results",
            maps_folder=self.folder / "maps",
            baselines=self.folder / "baselines.json",
            split="test",
            evaluation=settings,
            seeds=seeds,
            device="cpu",
            **further,
        )
        return json.loads((self.folder / "results" / "scores.json").read_text())


def test_dvc_gets_a_few_of_the_scores(world):
    ends = ("success_rate", "success_rate_low", "success_rate_high")
    (world.folder / "baselines.json").write_text(json.dumps({"random": dict.fromkeys(ends, 0.1234567)}))
    world.respond(where_it_sounds)
    scores = world.evaluate()
    few = json.loads((world.folder / "results" / "metrics.json").read_text())
    assert (few["success_rate"], few["best_baseline"]) == (1, 0.1235)
    assert few["shuffled"] == round(scores["shuffled_success_rate"], 4)
    assert few["pointing"] == round(scores["pointing_accuracy"], 4)


def where_it_sounds(_model, _frame, sound):
    """A model that hears which clip it is, and knows that clip's sounding box."""
    return mask(boxes_of(CLIPS[sound])[0], 256)


def at_random(_model, frame, sound):
    return np.random.default_rng([frame, sound]).normal(size=(8, 8))


@pytest.mark.parametrize("content", ["[]", '{"random": 3}', '{"random": {"foo": 1}}', "no JSON"])
def test_baselines_that_hold_no_scores_are_refused_before_anything_is_written(world, content):
    world.respond(at_random)
    (world.folder / "baselines.json").write_text(content)
    with pytest.raises(EvaluationError, match=r"baselines\.json:.*; run `dvc repro baselines`$"):
        world.evaluate()
    assert not (world.folder / "results").exists()


def test_a_model_of_another_seed_is_refused(world):
    world.respond(at_random)
    with pytest.raises(EvaluationError, match=r"ours/model\.pt: .*seed 3, .*5"):
        world.evaluate(seeds=(5,))


def test_clips_extracted_in_another_way_are_refused(world):
    world.respond(at_random)
    other = Model("ours")
    other.description = {"image_size": 999, "audio": {}}
    world.monkeypatch.setattr(model_maps, "load_model", lambda path: other)
    with pytest.raises(EvaluationError, match=r"model\.pt: .*image_size 999, .* with \d+;"):
        world.evaluate()


def test_clips_that_were_learned_from_are_not_scored(world):
    world.respond(at_random)
    listed = [Clip("train-00", video="a.mp4"), Clip(CLIPS[1], video="b.mp4")]
    path = world.folder / "clips.csv"
    write_csv(path, ("split", *CLIP_COLUMNS), [("train", *clip_row(clip)) for clip in listed])
    with pytest.raises(
        EvaluationError,
        match=rf"test\.csv: 1 of 10 clips .*'{CLIPS[1]}'",
    ):
        world.evaluate(clips=path)
    assert world.evaluate(clips=path, leaks_allowed=True) == world.evaluate()
    write_csv(path, ("split", *CLIP_COLUMNS), [("train", *clip_row(listed[0])), ("test", *clip_row(listed[1]))])
    assert world.evaluate(clips=path) == world.evaluate()


def test_a_perfect_model_scores_one_and_fails_with_shuffled_audio(world):
    world.respond(where_it_sounds)
    metrics = world.evaluate()
    for metric in METRICS:
        assert metrics[metric] == metrics[f"{metric}_low"] == metrics[f"{metric}_high"] == pytest.approx(1)
    order = derangement(len(CLIPS), seed=0)
    shifts = np.array([boxes_of(CLIPS[i])[0].x0 - boxes_of(CLIPS[j])[0].x0 for i, j in enumerate(order)])
    # Two boxes of width 3/8, one shifted by d: IoU (3/8 - d) / (3/8 + d), or 0.
    iou = np.maximum(3 / 8 - abs(shifts), 0) / (3 / 8 + abs(shifts))
    assert metrics["shuffled_mean_ciou"] == metrics["shuffled_mean_iou"] == pytest.approx(iou.mean())
    assert metrics["shuffled_success_rate"] == pytest.approx((iou >= 0.5).mean())
    assert metrics["shuffled_success_rate"] < 0.5


def test_how_strong_responses_usually_are_is_kept_beside_the_maps(world):
    world.respond(lambda model, frame, sound: np.full((8, 8), frame / 10 if frame == sound else -1.0))
    world.evaluate(seeds=(3, 7))
    for path in (world.folder / "maps", world.folder / "maps" / "seed_7"):
        calibration = read_calibration(path / CALIBRATION_FILE)
        assert (calibration.split, calibration.n_clips) == ("test", len(CLIPS))
        assert [calibration.own[i] for i in (0, 50, 100)] == pytest.approx([0, 0.45, 0.9])
        assert {name: set(peaks) for name, peaks in calibration.foreign.items()} == {
            "shuffled": {-1},
            "hiss": {0.25},
            "hum": {0.5},
        }
        assert calibration.model == file_digest(world.folder / "runs" / "ours" / "model.pt")


def test_a_model_that_points_at_the_silent_object_scores_nothing(world):
    world.respond(lambda _model, frame, _sound: mask(boxes_of(CLIPS[frame])[1], 256))
    metrics = world.evaluate()
    assert [metrics[m] for m in METRICS if m != "auc"] == [0, 0, 0, 0]
    # Every cIoU reaches the threshold 0, which is half a step of the trapezoid.
    assert metrics["auc"] == pytest.approx(0.025)


def test_keys_of_one_seed(world):
    world.respond(where_it_sounds)
    metrics = world.evaluate()
    ends = ("", "_low", "_high")
    median = [m for m in METRICS if m != "pointing_accuracy"]
    expected = {p + m + end for p in ("", "shuffled_") for m in METRICS for end in ends}
    expected |= {p + m + end for p in ("median_", "shuffled_median_") for m in median for end in ends}
    counts = {"n_clips", "n_skipped", "n_skipped_silent", "n_skipped_empty", "n_missing_maps", "n_flat_maps"}
    assert set(metrics) == expected | counts | {"n_boxes_outside", "protocol", "threshold", "split", "seeds"}
    assert (metrics["split"], metrics["seeds"]) == ("test", [3])
    assert (metrics["n_clips"], metrics["protocol"], metrics["threshold"]) == (len(CLIPS), "paper256", 0.5)


def test_mosaics_have_a_quadrant_accuracy_with_own_and_with_shuffled_audio(world, capsys):
    rule = EvaluationSettings(protocol="paper256", threshold=0.5, grid=2)
    content_free = world.folder / "baselines.json"
    evaluate_content_free(world.shards, world.manifest, content_free, split="test", evaluation=rule)
    world.respond(where_it_sounds)
    metrics = world.evaluate(settings=rule)

    # All squares are in the upper row, and their centers in the left or in the right column.
    right = [boxes_of(clip_id)[0].x0 + 0.1875 > 0.5 for clip_id in CLIPS]
    alike = [right[i] == right[j] for i, j in enumerate(derangement(len(CLIPS), seed=0))]
    assert 0 < np.mean(alike) < 1
    assert (metrics["quadrant_accuracy"], metrics["quadrant_accuracy_low"]) == (1, 1)
    assert metrics["shuffled_quadrant_accuracy"] == pytest.approx(np.mean(alike))
    rows = list(csv.DictReader((world.folder / "results" / "scores.csv").open()))
    assert [float(row["quadrant"]) for row in rows] == [1] * len(CLIPS)
    assert [float(row["shuffled_quadrant"]) for row in rows] == alike
    blind = json.loads(content_free.read_text())
    assert [blind["all_ones"][key] for key in ("quadrant_accuracy", "quadrant_chance")] == [0.25, 0.25]
    assert all({"quadrant_accuracy_low", "quadrant_chance"} <= set(row) for row in blind.values())
    printed = capsys.readouterr().out
    assert "reach 25.0%" in printed
    assert "quadrant" in next(line for line in printed.splitlines() if line.startswith("percent"))

    # The same maps without a grid: no other score moves.
    without = world.evaluate()
    assert without == {key: value for key, value in metrics.items() if "quadrant" not in key}


def test_the_diagnostics_of_the_last_epoch_are_means_over_seeds(world):
    world.respond(where_it_sounds)
    for name, border, gap in (("ours", 0.25, math.nan), ("ours/seed_7", 0.75, 0.125)):
        rows = [{"epoch": 0, "border_peaks": 0.9}, {"epoch": 1, "border_peaks": border, "audio_gap": gap}]
        folder = world.folder / "runs" / name
        write_history(folder / "history.csv", folder / "timings.csv", [start_row(row) for row in rows])
    metrics = world.evaluate(seeds=(SEED, 7))
    found = {key: value for key, value in metrics.items() if key.startswith("training_")}
    assert found == {"training_border_peaks": 0.5, "training_audio_gap": 0.125}


def test_a_damaged_history_is_refused_before_the_maps_are_computed(world):
    world.respond(lambda *_: pytest.fail("maps are computed"))
    (world.folder / "runs/ours/history.csv").write_text("epoch,loss\n")
    with pytest.raises(TrainingError, match=r"ours/history\.csv: damaged"):
        world.evaluate()


def test_means_intervals_and_lists_over_seeds_follow_from_the_clips(world):
    """Everything about two seeds, computed naively from scores.csv."""
    kept = {CLIPS[i] for i in (0, 2, 3, 7)}
    world.respond(
        lambda model, frame, sound: (
            where_it_sounds(model, frame, sound)
            if model == "ours" or CLIPS[frame] in kept
            else np.kron(at_random(model, frame, sound), np.ones((32, 32)))
        )
    )
    metrics = world.evaluate(seeds=(3, 7))
    rows = list(csv.DictReader((world.folder / "results" / "scores.csv").open()))
    assert [(row["clip_id"], row["seed"]) for row in rows] == [(c, s) for s in ("3", "7") for c in CLIPS]
    ciou = {(row["seed"], row["clip_id"]): float(row["ciou"]) for row in rows}
    rates = [sum(ciou[seed, clip_id] >= 0.5 for clip_id in CLIPS) / len(CLIPS) for seed in ("3", "7")]
    assert rates[0] == 1 > rates[1] >= 0.4
    assert metrics["success_rate_seeds"] == pytest.approx(rates)
    assert metrics["success_rate"] == pytest.approx(sum(rates) / 2)
    assert metrics["mean_ciou_seeds"][1] == pytest.approx(np.mean([ciou["7", c] for c in CLIPS]))

    of_clips = np.array([[float(ciou[seed, clip_id] >= 0.5) for seed in ("3", "7")] for clip_id in CLIPS]).mean(axis=1)
    generator = np.random.default_rng(1)
    means = [of_clips[generator.integers(0, len(CLIPS), len(CLIPS))].mean() for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert metrics["success_rate_low"] == pytest.approx(low, abs=0.06)
    assert metrics["success_rate_high"] == pytest.approx(high, abs=0.06)
    assert {f"{p}{m}_seeds" for p in ("", "shuffled_") for m in METRICS} <= set(metrics)

    curve = list(csv.DictReader((world.folder / "results" / "success_curve.csv").open()))
    assert [float(row["threshold"]) for row in curve] == pytest.approx([i / 20 for i in range(21)])
    for row in curve:
        reached = np.mean([value >= float(row["threshold"]) - 1e-9 for value in ciou.values()])
        assert float(row["success_rate"]) == pytest.approx(reached)


def test_maps_are_kept_raw_for_every_seed_with_the_same_bytes(world):
    world.respond(lambda model, frame, sound: 5 * at_random(model, frame, sound) - 40)
    world.evaluate(seeds=(3, 7))
    paths = [world.folder / "maps" / "maps.h5", world.folder / "maps" / "seed_7" / "maps.h5"]
    before = [path.read_bytes() for path in paths]
    maps = read_maps(paths[1])
    assert (maps.split, maps.seed, maps.shards) == ("test", 7, world.shards.fingerprint)
    assert maps.clip_ids == CLIPS
    assert maps.response.dtype == np.float32
    np.testing.assert_array_equal(maps.response[4], (5 * at_random("", 4, 4) - 40).astype(np.float32))
    other = CLIPS.index(maps.shuffled_clip_ids[4])
    np.testing.assert_array_equal(maps.shuffled_response[4], (5 * at_random("", 4, other) - 40).astype(np.float32))
    world.evaluate(seeds=(3, 7))
    assert [path.read_bytes() for path in paths] == before


def test_maps_with_a_normalization_of_their_own_keep_it_under_every_rule(world, monkeypatch, capsys):
    """A map at 0.8 in the sounding box, 0 in the rest of the frame's upper half, -1 below.

    Min-max stretches the 0 to 0.56, above the protocol's 0.5; the method itself says that 0 does not sound.
    """

    def two_levels(_model, frame, _sound):
        level = np.where(np.arange(64)[:, None] < 32, 0.0, -1.0) * np.ones((64, 64))
        return np.where(mask(boxes_of(CLIPS[frame])[0], 64), 0.8, level)

    world.respond(two_levels)
    before = world.evaluate()
    assert "normalization" not in before
    assert before["mean_ciou"] < 0.4
    assert read_maps(world.folder / "maps" / "maps.h5").normalization is None
    monkeypatch.setattr(Model, "normalization", "relu-max")
    after = world.evaluate()
    assert after["normalization"] == "relu-max"
    assert after["mean_ciou"] > 0.95
    assert after["protocol"] == before["protocol"] == "paper256"
    printed = capsys.readouterr().out
    (note,) = [line for line in printed.splitlines() if "relu-max" in line]
    assert note.index("relu-max") < note.index("min-max") < note.index(": ours.")

    maps = read_maps(world.folder / "maps" / "maps.h5")
    assert maps.normalization == "relu-max"
    np.testing.assert_array_equal(maps.response[0], two_levels("", 0, 0).astype(np.float32))
    (row,) = [
        row
        for row in rescore({"ours": [maps]}, read_split_boxes(world.manifest, "test"), [get_protocol("paper256")])
        if row.name == "ours"
    ]
    assert row.metrics["paper256"]["mean_ciou"] == after["mean_ciou"]


def test_content_free_rows_stay_as_they_are_beside_such_maps(world, monkeypatch):
    world.respond(at_random)
    boxes, rules = read_split_boxes(world.manifest, "test"), [get_protocol("paper256"), get_protocol("vggss224")]
    rows = []
    for normalization in (None, "relu-max"):
        monkeypatch.setattr(Model, "normalization", normalization)
        world.evaluate()
        rows.append(rescore({"ours": [read_maps(world.folder / "maps" / "maps.h5")]}, boxes, rules))
    for plain, other in zip(*rows, strict=True):
        assert (plain.metrics == other.metrics) == (plain.name != "ours")


def test_an_unknown_normalization_is_refused(world):
    world.respond(at_random)
    world.evaluate()
    path = world.folder / "maps" / "maps.h5"
    with edited(path) as file:
        file.attrs["normalization"] = "softmax"
    with pytest.raises(EvaluationError, match=r"maps\.h5: not usable .*unknown normalization 'softmax'"):
        read_maps(path)


def test_damaged_maps_are_refused(world):
    world.respond(at_random)
    world.evaluate()
    path = world.folder / "maps" / "maps.h5"
    with edited(path) as file:
        file.attrs["format_version"] = 99
    with pytest.raises(EvaluationError, match=r"maps\.h5: not usable .*format version 99"):
        read_maps(path)
    path.write_bytes(b"nothing")
    with pytest.raises(EvaluationError, match=r"maps\.h5: not usable"):
        read_maps(path)


@pytest.mark.parametrize(("n", "seed"), [(2, 0), (3, 0), (10, 1), (501, 2)])
def test_a_derangement_moves_every_clip(n, seed):
    order = derangement(n, seed=seed)
    assert sorted(order) == list(range(n))
    assert all(i != j for i, j in enumerate(order))
    assert order == derangement(n, seed=seed)


def test_one_clip_cannot_be_shuffled():
    with pytest.raises(EvaluationError, match=r"at least 2 clips.* 1$"):
        derangement(1, seed=0)


@pytest.mark.parametrize(
    ("protocol", "prefixes"),
    [
        ("paper256", ["", "median_"]),
        ("vggss224", ["", "fixed_"]),
        ("music-synthetic-a", ["", "median_", "fixed_"]),
    ],
)
def test_the_cards_rule_is_scored_beside_the_others(protocol, prefixes):
    rules = scoring_rules(get_protocol(protocol))
    assert list(rules) == prefixes
    assert rules[""] == get_protocol(protocol)
    assert len({rule.name for rule in rules.values()}) == len(rules)
    for prefix, rule in ("median_", "median"), ("fixed_", "fixed"):
        if prefix in rules:
            assert (rules[prefix].threshold_rule, rules[prefix].size) == (rule, rules[""].size)


def test_content_free_rows_under_the_same_keys(world):
    path = world.folder / "baselines.json"
    evaluate_content_free(world.shards, world.manifest, path, split="test", evaluation=RULE)
    rows = json.loads(path.read_text())
    assert list(rows) == ["random", "all_ones", "centered_gaussian", "mean_of_boxes"]
    world.respond(at_random)
    own = {key for key in world.evaluate() if not key.startswith("shuffled_")}
    assert all(set(row) == own - {"seeds"} | {"success_curve"} for row in rows.values())
    assert {row["split"] for row in rows.values()} == {"test"}
    # One box of 3/8 × 3/8 of the frame: all ones has this IoU with it, and points at it with this chance.
    assert rows["all_ones"]["success_curve"] == [float(k / 20 <= (3 / 8) ** 2) for k in range(21)]
    for key in ("mean_ciou", "mean_iou", "pointing_accuracy", "median_mean_ciou"):
        assert rows["all_ones"][key] == pytest.approx((3 / 8) ** 2)


def test_without_boxes_elsewhere_there_is_no_prior(world):
    (world.manifest / "validation_boxes.csv").unlink()
    path = world.folder / "baselines.json"
    evaluate_content_free(world.shards, world.manifest, path, split="test", evaluation=RULE)
    assert list(json.loads(path.read_text())) == ["random", "all_ones", "centered_gaussian"]


def test_a_prior_never_reads_the_test_split(world):
    path = world.folder / "baselines.json"
    write_boxes(world.manifest / "validation_boxes.csv", [box for clip_id in CLIPS for box in boxes_of(clip_id)])
    evaluate_content_free(world.shards, world.manifest, path, split="validation", evaluation=RULE)
    assert "mean_of_boxes" not in json.loads(path.read_text())
    write_boxes(world.manifest / "train_boxes.csv", boxes_of("another-07"))
    evaluate_content_free(world.shards, world.manifest, path, split="validation", evaluation=RULE)
    assert "mean_of_boxes" in json.loads(path.read_text())


@pytest.mark.parametrize("scored", ["test", "test_part"])
def test_a_prior_knows_no_scored_clip_whatever_splits_it_is_in(world, scored):
    part = [box for clip_id in CLIPS[:4] for box in boxes_of(clip_id)]
    write_boxes(world.manifest / "test_part_boxes.csv", part)
    write_boxes(world.manifest / "validation_boxes.csv", [*part, *boxes_of("another-07")])
    assert read_prior_boxes(world.manifest, scored) == boxes_of("another-07")


def test_terminal_shows_the_content_free_rows_beside_the_model(world, capsys):
    path = world.folder / "baselines.json"
    evaluate_content_free(world.shards, world.manifest, path, split="test", evaluation=RULE)
    world.respond(where_it_sounds)
    world.evaluate()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "test: 10 of 10 clips, protocol paper256, success at cIoU ≥ 0.5; ±: half the bootstrap 95% interval over clips"
    )
    firsts = [line[: lines[2].index("  ")].strip() for line in lines[3:] if line]
    assert firsts[:2] == ["random map", "all ones"]
    assert [line.split("  ")[0] for line in lines[3:] if line][-2:] == ["ours", "ours, shuffled audio"]
    assert "100.0 ±0.0" in next(line for line in lines if line.startswith("ours "))


def test_curve_picture_opens_and_is_not_blank(world):
    world.respond(at_random)
    world.evaluate()
    picture = np.asarray(Image.open(world.folder / "results" / "success_curve.png").convert("L"))
    assert min(picture.shape) > 300
    assert picture.std() > 5


def test_clips_that_are_not_scored_are_counted(world, capsys):
    text = (world.manifest / "test_boxes.csv").read_text().splitlines()
    kept = [line for line in text if not line.startswith("test-04") or ",0," in line]
    (world.manifest / "test_boxes.csv").write_text("\n".join([*kept, "gone,x,test,1,0,0,1,1"]) + "\n")
    world.respond(where_it_sounds)
    metrics = world.evaluate()
    assert (metrics["n_clips"], metrics["n_skipped_silent"], metrics["n_missing_maps"]) == (9, 1, 1)
    assert metrics["success_rate"] == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert "9 of 10 clips" in first
    assert "(1 without a sounding box; 1 with boxes but not in the shards)" in first


def test_errors_say_what_to_do(world, tmp_path):
    world.respond(at_random)
    (world.folder / "runs" / "ours" / "seed_7" / "model.pt").unlink()
    with pytest.raises(EvaluationError, match=r"seed_7/model\.pt: no trained model; run `dvc repro train`"):
        world.evaluate(seeds=(3, 7))
    (world.folder / "baselines.json").unlink()
    with pytest.raises(EvaluationError, match=r"baselines\.json: .*`dvc repro baselines`"):
        world.evaluate()
    with pytest.raises(EvaluationError, match=r"'mine'.*paper256"):
        world.evaluate(settings=EvaluationSettings(protocol="mine"))
    (world.manifest / "test_boxes.csv").unlink()
    with pytest.raises(EvaluationError, match=r"no boxes for the split 'test'.*score_split.*\(validation\)"):
        world.evaluate()


def test_boxes_of_other_clips_are_an_error(world):
    manifest = make_manifest(world.folder / "other", [f"another-{i:02d}" for i in range(4)], elsewhere=[])
    with pytest.raises(EvaluationError, match=r"no clip is left to score.*4 clips with sounding boxes are not among"):
        evaluate_content_free(world.shards, manifest, Path(world.folder / "b.json"), split="test", evaluation=RULE)
    assert not (world.folder / "b.json").exists()
