import csv
import errno
import hashlib
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from pipeline.common import files
from pipeline.common.config import AugmentationSettings, IterationSettings, LabeledSettings, OptimizationSettings
from pipeline.common.console import run_command
from pipeline.common.errors import CheckpointError, PseudoLabelError, SettingsError, TrainingError
from pipeline.common.files import locked
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.contrastive import Contrastive
from pipeline.methods.registry import METHODS
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.devices import select_device
from pipeline.model.encoders import build_model
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training import batches as batches_module
from pipeline.training.batches import PreviousEpoch, training_batches
from pipeline.training.checkpoints import load_model, read_checkpoint
from pipeline.training.history import HISTORY, Waited
from pipeline.training.train import Execution, initialize, train
from tests.support.easy_world import SHARP
from tests.support.synthetic import CELL, ENCODER, MemoryShards, make_settings, make_world, write_clip_list


def digests(folder):
    """Return the digest of every artifact and model in a folder."""
    paths = [*folder.rglob("*.h5"), *folder.rglob("*.pt")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def read_history(folder, name="history.csv"):
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def world():
    return make_world(24, size=32)[0]


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """An initial and an iterative run of two seeds (read-only)."""
    folder = tmp_path_factory.mktemp("runs")
    settings = make_settings()
    initialize(world, folder / "initialize", settings=settings, seeds=[0, 3])
    train(world, folder / "initialize", folder / "iterative", method="iterative", settings=settings, seeds=[0, 3])
    return folder


class TestOutputs:
    def test_files(self, trained):
        names = {
            "initialize": ["model.pt", "pseudo_labels/epoch_000.h5"],
            "iterative": [
                "model.pt",
                *(f"pseudo_labels/epoch_00{epoch}.h5" for epoch in (0, 1, 2)),
                *(f"weights/epoch_00{epoch}.pt" for epoch in (0, 1)),
            ],
        }
        expected = {f"{stage}/{seed}{name}" for stage in names for seed in ("", "seed_3/") for name in names[stage]}
        assert set(digests(trained)) == expected
        assert not list(trained.rglob("*.tmp"))

    def test_history(self, trained):
        initial, iterated = read_history(trained / "initialize"), read_history(trained / "iterative")
        assert [row["epoch"] for row in initial] == [row["epoch"] for row in iterated] == ["0", "1", "2"]
        assert list(iterated[0]) == list(HISTORY)
        assert initial[0]["sounding_fraction"] == initial[1]["positives_per_clip"] == ""
        for row in iterated[1:]:
            assert all(math.isfinite(float(value)) for value in row.values())
            assert 0 <= float(row["mask_iou_previous"]) <= 1

    def test_timings(self, trained):
        rows = read_history(trained / "iterative", "timings.csv")
        assert [row["epoch"] for row in rows] == ["1", "2"]
        for row in rows:
            assert float(row["seconds"]) > 0
            assert float(row["pairs_per_second"]) > 0
            assert 0 <= float(row["data_wait_fraction"]) < 1
            assert 0 < float(row["label_pass_fraction"]) < 1

    def test_history_agrees_with_the_artifacts(self, trained):
        labels = [PseudoLabels.open(trained / f"iterative/pseudo_labels/epoch_{epoch:03d}.h5") for epoch in range(3)]
        for epoch, row in enumerate(read_history(trained / "iterative")[1:], start=1):
            assert float(row["mask_iou_previous"]) == pytest.approx(labels[epoch].mask_iou(labels[epoch - 1]), rel=1e-4)
            assert float(row["sounding_fraction"]) == pytest.approx(labels[epoch].sounding_fraction.mean(), rel=1e-4)

    def test_artifacts_have_the_attributes_of_their_run(self, trained):
        initial = PseudoLabels.open(trained / "initialize/pseudo_labels/epoch_000.h5")
        copied = PseudoLabels.open(trained / "iterative/pseudo_labels/epoch_000.h5")
        last = PseudoLabels.open(trained / "iterative/pseudo_labels/epoch_002.h5")
        assert [initial.attrs[name] for name in ("epoch", "stage", "objective")] == [0, "initialize", "initial"]
        assert [last.attrs[name] for name in ("epoch", "stage", "objective")] == [2, "train", "iterative"]
        assert [last.attrs[name] for name in ("delta_v", "delta_a", "temperature")] == [0.7, 0.8, 0.3]
        np.testing.assert_array_equal(copied.response, initial.response)
        assert copied.attrs["delta_v"] == 0.7
        assert copied.attrs["fingerprint"] == last.attrs["fingerprint"] != initial.attrs["fingerprint"]

    def test_the_last_artifact_has_the_models_responses_to_the_unaugmented_training_set(self, trained, world):
        model = load_model(trained / "iterative/model.pt")
        response = model.response_maps(world, batch_size=8, device="cpu")
        labels = PseudoLabels.open(trained / "iterative/pseudo_labels/epoch_002.h5")
        np.testing.assert_array_equal(labels.response_min, response.min(axis=(1, 2)))
        np.testing.assert_array_equal(labels.response_max, response.max(axis=(1, 2)))

    def test_model_describes_itself(self, trained, world):
        model = load_model(trained / "iterative/seed_3/model.pt")
        description = model.description
        assert description["method"] == "iterative"
        assert (description["seed"], description["epoch"], description["image_size"]) == (3, 2, 32)
        assert description["encoder"] == ENCODER.model_dump(mode="json")
        assert description["audio"] == world.settings
        assert description["delta_v"] == description["iteration"]["delta_v"] == 0.7
        assert not model.encoders.training

    def test_seeds_differ(self, trained):
        found = digests(trained)
        assert found["iterative/model.pt"] != found["iterative/seed_3/model.pt"]


class TestMethods:
    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_trains_from_the_same_initial_model(self, trained, world, tmp_path, method):
        settings, clips = make_settings(), write_clip_list(tmp_path / "clips.csv", world.clip_ids)
        train(world, trained / "initialize", tmp_path / "run", method=method, settings=settings, seeds=[0], clips=clips)
        epochs = 0 if method == "untouched" else 2
        assert len(list((tmp_path / "run/pseudo_labels").glob("epoch_*.h5"))) == epochs + 1
        assert len(read_history(tmp_path / "run")) == epochs + 1
        assert load_model(tmp_path / "run/model.pt").description["method"] == method

    def test_untouched_is_the_initial_model(self, trained, world, tmp_path, monkeypatch, capsys):
        def once():
            train(
                world, trained / "initialize", tmp_path / "run", method="untouched", settings=make_settings(), seeds=[0]
            )

        once()
        before, after = (
            load_model(folder / "model.pt").encoders.state_dict()
            for folder in (trained / "initialize", tmp_path / "run")
        )
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        labels, initial = (
            PseudoLabels.open(folder / "pseudo_labels/epoch_000.h5")
            for folder in (tmp_path / "run", trained / "initialize")
        )
        assert np.array_equal(labels.response, initial.response)
        assert not (tmp_path / "run/state.pt").exists()
        capsys.readouterr()
        once()
        assert "finished and unchanged" in capsys.readouterr().err
        # Killed before the record of the checksums: the run starts again.
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.training.state.write_history", lambda *_: 1 / 0)
            (tmp_path / "run/model.pt").unlink()
            with pytest.raises(ZeroDivisionError):
                once()
        once()
        assert (tmp_path / "run/model.pt").exists()

    def test_only_untouched_has_no_epoch(self):
        settings = make_settings(methods={"untouched": {}, "initial": {"epochs": 0}})
        assert method_settings(settings, "untouched").epochs == 0
        with pytest.raises(SettingsError, match=r"methods\.initial.*'epochs'.*0"):
            method_settings(settings, "initial")
        with pytest.raises(SettingsError, match=r"methods\.untouched.*'epochs'.*2"):
            method_settings(make_settings(methods={"untouched": {"epochs": 2}}), "untouched")

    def test_initial_matched_has_the_temperature_of_iterative(self, trained, world, tmp_path):
        settings = make_settings(methods={"initial_matched": {}, "iterative": {"temperature": 0.07}})
        with pytest.raises(SettingsError, match=r"methods\.initial_matched.* 0\.3 .*'iterative', 0\.07"):
            train(world, trained / "initialize", tmp_path, method="initial_matched", settings=settings, seeds=[0])

    def test_methods_see_the_same_batches(self, trained, world, tmp_path, monkeypatch):
        def seen(method):
            keys, batches = [], []

            def spy(*args, **keywords):
                keys.append(keywords["key"])
                for batch in training_batches(*args, **keywords):
                    batches.append(batch)
                    yield batch

            monkeypatch.setattr("pipeline.training.run.training_batches", spy)
            train(world, trained / "initialize", tmp_path / method, method=method, settings=make_settings(), seeds=[0])
            return keys, batches

        (keys, batches), (other_keys, other_batches) = seen("itr"), seen("iterative")
        assert keys == other_keys == [(0, "train", 1), (0, "train", 2)]
        assert len(batches) == 6
        for batch, other in zip(batches, other_batches, strict=True):
            np.testing.assert_array_equal(batch.rows, other.rows)
            assert torch.equal(batch.frames, other.frames)
            assert torch.equal(batch.log_mel, other.log_mel)
        assert not torch.equal(batches[0].frames, batches[3].frames)

    def test_unknown_method(self, trained, world, tmp_path):
        with pytest.raises(SettingsError, match=r"'dreaming'.*itr, itr_intra"):
            train(world, trained / "initialize", tmp_path, method="dreaming", settings=make_settings(), seeds=[0])

    def test_no_labels(self, trained, world, tmp_path, monkeypatch):
        monkeypatch.setattr(Contrastive, "Settings", LabeledSettings)
        with pytest.raises(TrainingError, match="label_file"):
            train(world, trained / "initialize", tmp_path, method="initial", settings=make_settings(), seeds=[0])


class TestBatches:
    def iterate(self, world, augmentation, previous=None):
        return training_batches(
            world, batch_size=8, augmentation=augmentation, cell_stride=CELL, key=(1,), previous=previous,
            device=torch.device("cpu"),
        )  # fmt: skip

    def batches(self, world, augmentation, previous=None):
        return list(self.iterate(world, augmentation, previous))

    def test_everything_the_caller_waits_for_is_timed(self, world, monkeypatch):
        def slow_jitter(frames, changes):
            time.sleep(0.05)
            return frames

        monkeypatch.setattr(batches_module, "jitter_colors", slow_jitter)
        timed = Waited(self.iterate(world, AugmentationSettings(flip=False, color_jitter=0.5)))
        for _ in timed:
            waited = timed.seconds
            time.sleep(0.05)  # the caller's own work does not count
            assert timed.seconds == waited
        assert timed.seconds >= 3 * 0.05

    def test_every_clip_comes_once_and_an_incomplete_batch_is_dropped(self, world):
        plain = AugmentationSettings(flip=False)
        rows = np.concatenate([batch.rows for batch in self.batches(world, plain)])
        assert sorted(rows) == list(range(24))
        shorter = MemoryShards(world.frames[:21], world.log_mel[:21])
        assert [len(batch.rows) for batch in self.batches(shorter, plain)] == [8, 8]

    def test_without_augmentation_pairs_are_those_of_the_shards(self, world):
        for batch in self.batches(world, AugmentationSettings(flip=False)):
            assert torch.equal(batch.frames.permute(0, 2, 3, 1), torch.from_numpy(world.frames[batch.rows]))
            assert torch.equal(batch.log_mel, torch.from_numpy(world.log_mel[batch.rows]))

    def test_maps_and_relation_belong_to_the_batchs_clips(self, world, trained):
        labels = PseudoLabels.open(trained / "iterative/pseudo_labels/epoch_000.h5")
        shuffled = MemoryShards(world.frames[::-1], world.log_mel[::-1], clip_ids=world.clip_ids[::-1])
        previous = PreviousEpoch.of(labels, shuffled, delta_a=0.8, center_audio=False)
        for batch in self.batches(shuffled, AugmentationSettings(flip=False), previous):
            ids = [shuffled.clip_ids[row] for row in batch.rows]
            np.testing.assert_array_equal(batch.previous_response.numpy(), labels.response[labels.rows(ids)])
            cosines = labels.audio_embedding[labels.rows(ids)] @ labels.audio_embedding[labels.rows(ids)].T
            clear = np.abs(cosines - 0.8) > 1e-3
            np.testing.assert_array_equal(batch.relation.numpy()[clear], (cosines >= 0.8)[clear])

    def test_maps_are_mirrored_with_their_frames(self, world, trained):
        labels = PseudoLabels.open(trained / "iterative/pseudo_labels/epoch_000.h5")
        previous = PreviousEpoch.of(labels, world, delta_a=0.8, center_audio=False)
        found = []
        for batch in self.batches(world, AugmentationSettings(flip=True), previous):
            for frame, response, row in zip(batch.frames, batch.previous_response, batch.rows, strict=True):
                mirrored = np.array_equal(frame.permute(1, 2, 0), world.frames[row][:, ::-1])
                own = labels.response[labels.rows([world.clip_ids[row]])][0]
                np.testing.assert_array_equal(response, own[:, ::-1] if mirrored else own)
                found.append(mirrored)
        assert 0 < sum(found) < len(found)

    def test_an_error_in_the_reading_thread_is_raised(self, world):
        broken = MemoryShards(world.frames[:10], world.log_mel)
        broken.read = lambda rows: (_ for _ in ()).throw(OSError("disk on fire"))
        with pytest.raises(OSError, match="disk on fire"):
            self.batches(broken, AugmentationSettings())


class TestLearning:
    def test_loss_falls_and_maps_find_the_sounding_patch(self, tmp_path):
        shards, boxes = make_world(192, seed=1)
        settings = make_settings(
            batch_size=32,
            encoder=SHARP,
            initialize=OptimizationSettings(epochs=12, temperature=0.1, learning_rate=3e-3, weight_decay=1e-4),
        )
        initialize(shards, tmp_path / "initialize", settings=settings, seeds=[0])
        train(shards, tmp_path / "initialize", tmp_path / "full", method="iterative", settings=settings, seeds=[0])
        losses = [float(row["loss"]) for row in read_history(tmp_path / "initialize")[1:]]
        # Mean ± SD of 12 runs with initial weights perturbed by 1e-6, four on each of three CPU capabilities: the loss falls to
        # 0.79 ± 0.01, hits 0.84 ± 0.05 (least 0.77), and 0.65 ± 0.05 above shuffled (least 0.58).
        assert losses[-1] < 0.85 * losses[0]
        model = load_model(tmp_path / "full/model.pt")
        hits, shuffled = (
            hit_rate(model.response_maps(shards, batch_size=32, device="cpu", audio_order=order), boxes)
            for order in (None, np.roll(np.arange(192), 1))
        )
        # Two patches of a ninth of the frame each: chance finds the sounding one in 11%, a blind patch finder in 50%.
        assert hits > 0.65
        assert shuffled < hits - 0.4


def hit_rate(response, boxes):
    """Share of clips whose highest cell's center lies in the box (row0, col0, row1, col1)."""
    n, _, width = response.shape
    best = response.reshape(n, -1).argmax(axis=1)
    row, col = (best // width + 0.5) * CELL, (best % width + 0.5) * CELL
    return np.mean((row >= boxes[:, 0]) & (row < boxes[:, 2]) & (col >= boxes[:, 1]) & (col < boxes[:, 3]))


class TestResponseMaps:
    def test_do_not_depend_on_the_batch_size(self, trained, world):
        model = load_model(trained / "initialize/model.pt")
        few, many = (model.response_maps(world, batch_size=n, device="cpu") for n in (5, 24))
        assert few.shape == (24, 4, 4)
        assert few.dtype == np.float32
        np.testing.assert_allclose(few, many, atol=1e-5)

    def test_audio_order_pairs_frames_with_other_sounds(self, trained, world):
        model = load_model(trained / "initialize/model.pt")
        order = np.roll(np.arange(24), 5)
        swapped = MemoryShards(world.frames, world.log_mel[order])
        np.testing.assert_array_equal(
            model.response_maps(world, batch_size=7, device="cpu", audio_order=order),
            model.response_maps(swapped, batch_size=7, device="cpu"),
        )
        with pytest.raises(ValueError, match=r"audio_order.*3.*24"):
            model.response_maps(world, batch_size=7, device="cpu", audio_order=[0, 1, 2])

    def test_devices(self):
        assert select_device("auto").type in {"cpu", "cuda"}
        with pytest.raises(TrainingError, match="'abacus'"):
            select_device("abacus")
        with pytest.raises(TrainingError, match="'meta'"):
            select_device("meta")
        with pytest.raises(TrainingError, match=r"'mps'.*Apple"):
            select_device("mps")

    def test_a_pass_keeps_whole_float32_and_leaves_torch_as_it_was(self, world, monkeypatch):
        model, seen = build_model(make_settings().encoder), []
        heard, method = model.encode_audio, build_method("initial", make_settings().iterate)
        backends = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)

        def precisions():
            return [each.fp32_precision for each in backends]

        monkeypatch.setattr(model, "encode_audio", lambda a: (seen.append(precisions()), heard(a))[1])
        before = precisions()
        TrainedModel(model, method).response_maps(world, batch_size=24, device="cpu")
        TrainedModel(model, method).predict(world, batch_size=24, device="cpu", precision="tf32")
        assert (seen, precisions()) == ([["ieee", "ieee"], ["tf32", "tf32"]], before)


class TestMixedPrecision:
    @pytest.mark.parametrize("method", METHODS)
    def test_bfloat16_encoders_give_float32_features_and_nearly_the_same_loss(self, trained, world, method):
        model = load_model(trained / "initialize/model.pt").encoders
        labels = PseudoLabels.open(trained / "iterative/pseudo_labels/epoch_000.h5")
        previous = PreviousEpoch.of(labels, world, delta_a=0.8, center_audio=True)
        targets = np.eye(3, dtype=np.float32)[np.arange(24) % 3][:, None].repeat(2, axis=1)
        built = build_method(method, method_settings(make_settings(), method))
        built.prepare(model, n_clips=24, classes=("bell", "drum", "gong"))
        built.start_epoch(model, world, labels, epoch=1, seed=0)
        losses = []
        for enabled in (False, True):
            batches = training_batches(
                world, batch_size=24, augmentation=make_settings().augmentation, cell_stride=CELL, key=(0,),
                previous=previous, targets=targets, device=torch.device("cpu"),
            )  # fmt: skip
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                batch = next(batches)
                assert model.encode_frames(batch.frames).dtype == torch.float32
                losses.append(built.loss(model, batch))
        assert losses[0].dtype == losses[1].dtype == torch.float32
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_a_run_on_cuda(self, world, tmp_path):
        settings = make_settings()
        initialize(world, tmp_path / "initialize", settings=settings, seeds=[0], device="cuda")
        train(
            world, tmp_path / "initialize", tmp_path / "run", method="iterative", settings=settings, seeds=[0],
            device="cuda",
        )  # fmt: skip
        model = load_model(tmp_path / "run/model.pt")
        on_cuda, on_cpu = (model.response_maps(world, batch_size=8, device=device) for device in ("cuda", "cpu"))
        np.testing.assert_allclose(on_cuda, on_cpu, atol=0.02)


class TestMistakes:
    def test_batch_larger_than_the_training_set(self, world, tmp_path):
        with pytest.raises(TrainingError, match=r"batch_size 25\b.*\b24\b"):
            initialize(world, tmp_path, settings=make_settings(batch_size=25), seeds=[0])

    def test_two_writers(self, world, tmp_path):
        with (
            locked(tmp_path / "run", TrainingError),
            pytest.raises(TrainingError, match="run: another process"),
        ):
            initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])

    def test_no_initialization(self, world, tmp_path):
        with pytest.raises(CheckpointError, match=r"model\.pt.*run initialize"):
            train(world, tmp_path / "none", tmp_path / "run", method="itr", settings=make_settings(), seeds=[0])

    def test_missing_pretrained_weights(self, world, tmp_path):
        settings = make_settings(
            encoder=ENCODER.model_copy(
                update={"visual": ENCODER.visual.model_copy(update={"weights": str(tmp_path / "none.pth")})}
            )
        )
        with pytest.raises(CheckpointError, match=r"none\.pth.*encoder\.visual\.weights"):
            initialize(world, tmp_path / "run", settings=settings, seeds=[0])

    def test_another_seed_than_the_initializations(self, trained, world, tmp_path):
        with pytest.raises(TrainingError, match=r"model\.pt.*seed 0\b.*5"):
            train(world, trained / "initialize", tmp_path, method="itr", settings=make_settings(), seeds=[5])

    def test_other_encoders_than_the_initializations(self, trained, world, tmp_path):
        settings = make_settings(encoder=ENCODER.model_copy(update={"embedding_dim": 8}))
        with pytest.raises(TrainingError, match="`encoder`"):
            train(world, trained / "initialize", tmp_path, method="itr", settings=settings, seeds=[0])

    def test_other_clips_than_the_initializations(self, trained, world, tmp_path):
        other = MemoryShards(world.frames, world.log_mel, clip_ids=[f"other-{i}" for i in range(24)])
        with pytest.raises(PseudoLabelError, match=r"'other-0'.*epoch 0"):
            train(other, trained / "initialize", tmp_path, method="itr", settings=make_settings(), seeds=[0])

    def test_a_loss_that_is_not_finite_names_epoch_and_batch_and_loses_nothing(self, world, tmp_path, monkeypatch):
        calls = []

        def loss(self, model, batch):
            calls.append(batch)
            return Contrastive_loss(self, model, batch) * (float("nan") if len(calls) == 5 else 1)

        Contrastive_loss = Contrastive.loss
        monkeypatch.setattr(Contrastive, "loss", loss)
        with pytest.raises(TrainingError, match=r"seed 0, epoch 2/2, batch 2.*nan"):
            initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        assert (tmp_path / "run/state.pt").exists()
        assert len(read_history(tmp_path / "run")) == 2
        monkeypatch.undo()
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        initialize(world, tmp_path / "smooth", settings=make_settings(), seeds=[0])
        assert digests(tmp_path / "run") == digests(tmp_path / "smooth")


class TestFullDisk:
    @pytest.mark.parametrize(("name", "earlier"), [("state.pt", 1), ("pseudo_labels/epoch_002.h5", 0), ("model.pt", 0)])
    def test_one_line_names_the_file_and_earlier_epochs_stay(
        self, trained, world, tmp_path, monkeypatch, capsys, name, earlier
    ):
        run, write, written = tmp_path / "run", Path.write_bytes, []

        def until_full(path, content):
            written.append(path.with_name(path.name[1:].rsplit(".", 2)[0]))
            if written.count(run / name) > earlier:
                write(path, content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(path, content)

        def action():
            train(world, trained / "initialize", run, method="iterative", settings=make_settings(), seeds=[0])

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", until_full)
            with pytest.raises(SystemExit) as stopped:
                run_command(click.Command("x", callback=action), [])
        assert stopped.value.code == 1
        assert capsys.readouterr().err.splitlines()[-1] == f"error: {run / name}: No space left on device"
        assert not list(run.rglob("*.tmp"))
        assert (run / "state.pt").exists()
        action()
        assert digests(run) == {
            path: digest for path, digest in digests(trained / "iterative").items() if not path.startswith("seed_3")
        }


class TestWhenToResume:
    def interrupted(self, world, folder, monkeypatch, settings):
        """Initialize and interrupt in the second epoch."""

        def stop(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("pipeline.training.loop.TrainedModel.predict", stop)
            with pytest.raises(KeyboardInterrupt):
                initialize(world, folder, settings=settings, seeds=[0])
        assert (folder / "state.pt").exists()

    def epochs_run(self, world, folder, monkeypatch, settings, seeds=(0,), fresh=False):
        """Run to the end; return the seed and number of each epoch that was trained."""
        epochs = []

        def spy(*args, key, **keywords):
            epochs.append(key)
            return training_batches(*args, key=key, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr("pipeline.training.run.training_batches", spy)
            initialize(world, folder, settings=settings, seeds=list(seeds), execution=Execution(fresh=fresh))
        assert not list(folder.rglob("state.pt"))
        return [(seed, epoch) for seed, _, epoch in epochs]

    def test_an_unchanged_interrupted_run_resumes(self, world, tmp_path, monkeypatch):
        self.interrupted(world, tmp_path / "run", monkeypatch, make_settings())
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings()) == [(0, 2)]

    def test_a_changed_setting_starts_from_scratch(self, world, tmp_path, monkeypatch):
        self.interrupted(world, tmp_path / "run", monkeypatch, make_settings())
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings(batch_size=6)) == [(0, 1), (0, 2)]

    def test_settings_of_the_other_stage_do_not_matter(self, world, tmp_path, monkeypatch):
        self.interrupted(world, tmp_path / "run", monkeypatch, make_settings())
        iterate = IterationSettings(
            epochs=9, temperature=0.9, learning_rate=0.1, weight_decay=0.0, delta_v=0.1, delta_a=0.1
        )
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings(iterate=iterate)) == [(0, 2)]

    def test_other_shards_start_from_scratch(self, world, tmp_path, monkeypatch):
        self.interrupted(world, tmp_path / "run", monkeypatch, make_settings())
        other = MemoryShards(world.frames, world.log_mel, fingerprint="other")
        assert self.epochs_run(other, tmp_path / "run", monkeypatch, make_settings()) == [(0, 1), (0, 2)]

    @pytest.mark.parametrize(
        "name", ["pseudo_labels/epoch_000.h5", "pseudo_labels/epoch_001.h5", "weights/epoch_000.pt"]
    )
    def test_a_damaged_file_of_an_earlier_epoch_starts_from_scratch(self, trained, world, tmp_path, monkeypatch, name):
        def once():
            train(
                world, trained / "initialize", tmp_path / "run", method="initial", settings=make_settings(), seeds=[0]
            )

        once()
        whole = digests(tmp_path / "run")
        shutil.rmtree(tmp_path / "run")
        calls, real = [], TrainedModel.predict

        def stop_in_the_second_epoch(*args, **keywords):
            calls.append(args)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*args, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr("pipeline.training.loop.TrainedModel.predict", stop_in_the_second_epoch)
            with pytest.raises(KeyboardInterrupt):
                once()
        path = tmp_path / "run" / name
        content = bytearray(path.read_bytes())
        place = len(content) // 2
        if path.suffix == ".pt":  # not in the padding between tensors
            place = content.index(read_checkpoint(path)["model.visual.conv1.weight"].numpy().tobytes())
        content[place] ^= 1
        path.write_bytes(content)
        once()
        assert digests(tmp_path / "run") == whole

    def test_a_damaged_state_starts_from_scratch(self, world, tmp_path, monkeypatch):
        self.interrupted(world, tmp_path / "run", monkeypatch, make_settings())
        (tmp_path / "run/state.pt").write_bytes(b"half a file")
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings()) == [(0, 1), (0, 2)]

    def test_a_finished_run_is_verified_and_kept(self, world, tmp_path, monkeypatch, capsys):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
        capsys.readouterr()
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings()) == []
        assert "initialize, seed 0: finished" in capsys.readouterr().err
        assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}

    def test_other_data_of_the_same_clips_trains_again(self, world, tmp_path, monkeypatch):
        """As after a change of the code that decodes: the clips and settings, and so the shards' fingerprint, are the same."""
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        other = MemoryShards(world.frames, world.log_mel + 1)
        assert self.epochs_run(other, tmp_path / "run", monkeypatch, make_settings()) == []
        other.content_digest = "other"
        assert self.epochs_run(other, tmp_path / "run", monkeypatch, make_settings()) == [(0, 1), (0, 2)]

    def test_a_batch_that_does_not_fit_is_one_error(self, world, tmp_path, monkeypatch):
        def full(*_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr("pipeline.training.train.train_run", full)
        with pytest.raises(TrainingError, match=r"initialize, seed 0: a batch of 8 does not fit .* lower `batch_size`"):
            initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])

    def test_a_file_of_another_run_is_found(self, world, tmp_path, monkeypatch, capsys):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        labels = tmp_path / "run/pseudo_labels"
        shutil.copy(labels / "epoch_000.h5", labels / "epoch_007.h5")
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings()) == [(0, 1), (0, 2)]
        assert "epoch_007.h5 does not belong to the run" in capsys.readouterr().err
        assert [path.name for path in labels.iterdir()] == ["epoch_000.h5"]

    @pytest.mark.parametrize("name", ["pseudo_labels/.DS_Store", "pseudo_labels/notes.txt", "weights/.nfs0001"])
    def test_a_file_of_another_program_is_no_reason_to_train_again(self, world, tmp_path, monkeypatch, name):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings()) == []
        assert (tmp_path / "run" / name).read_text() == "mine"

    def test_a_finished_run_without_its_model_is_stale(self, world, tmp_path, monkeypatch, capsys):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        (tmp_path / "run/model.pt").unlink()
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings()) == [(0, 1), (0, 2)]
        assert "model.pt is missing" in capsys.readouterr().err

    def test_a_python_upgrade_is_named(self, world, tmp_path, monkeypatch, capsys):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        monkeypatch.setattr("pipeline.common.record.PYTHON", "3.99")
        monkeypatch.setattr("pipeline.training.spec.code_digest", lambda *_, **__: "0" * 32)
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings()) == [(0, 1), (0, 2)]
        assert "to 3.99" in capsys.readouterr().err

    def test_fresh_trains_a_finished_run_again(self, world, tmp_path, monkeypatch, capsys):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        before = digests(tmp_path / "run")
        again = self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings(), fresh=True)
        assert again == [(0, 1), (0, 2)]
        assert "SOUNDSPOT_FRESH" in capsys.readouterr().err
        assert digests(tmp_path / "run") == before

    def test_a_modified_file_of_a_finished_run_is_found(self, world, tmp_path, monkeypatch, capsys):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        before = digests(tmp_path / "run")
        path = tmp_path / "run/pseudo_labels/epoch_000.h5"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings()) == [(0, 1), (0, 2)]
        assert "pseudo_labels/epoch_000.h5" in capsys.readouterr().err
        assert digests(tmp_path / "run") == before

    def test_changed_code_starts_from_scratch(self, world, tmp_path, monkeypatch, capsys):
        self.interrupted(world, tmp_path / "run", monkeypatch, make_settings())
        monkeypatch.setattr("pipeline.training.spec.code_digest", lambda *_, **__: "0" * 32)
        assert self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings()) == [(0, 1), (0, 2)]
        assert "code" in capsys.readouterr().err
        again = self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings(), seeds=(0, 5))
        assert again == [(5, 1), (5, 2)]
        (tmp_path / "run/.record.json").unlink()
        again = self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings(), seeds=(0, 5))
        assert again == [(0, 1), (0, 2)]

    @pytest.mark.parametrize("name", ["history.csv", "pseudo_labels/epoch_000.h5"])
    def test_a_run_with_a_missing_file_is_trained_again(self, world, tmp_path, monkeypatch, name):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0, 5])
        before = digests(tmp_path / "run")
        (tmp_path / "run" / name).unlink()
        again = self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings(), seeds=(0, 5))
        assert again == [(0, 1), (0, 2)]
        assert digests(tmp_path / "run") == before
        assert (tmp_path / "run" / name).exists()

    def test_a_kill_while_a_finished_run_is_removed_leaves_no_partial_run(self, trained, world, tmp_path, monkeypatch):
        def once_more(fresh):
            train(
                world, trained / "initialize", tmp_path / "run", method="iterative", settings=make_settings(),
                seeds=[0, 3], execution=Execution(fresh=fresh),
            )  # fmt: skip

        def killed(folder, **_):
            (folder / "epoch_001.h5").unlink()
            raise KeyboardInterrupt

        shutil.copytree(trained / "iterative", tmp_path / "run")
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.training.run_folder.shutil.rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                once_more(fresh=True)
        assert not (tmp_path / "run/pseudo_labels/epoch_001.h5").exists()
        once_more(fresh=False)
        assert digests(tmp_path / "run") == digests(trained / "iterative")

    def test_an_additional_seed_keeps_the_finished_ones(self, world, tmp_path, monkeypatch):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0])
        again = self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings(), seeds=(0, 5))
        assert again == [(5, 1), (5, 2)]
        self.epochs_run(world, tmp_path / "run", monkeypatch, make_settings(), seeds=(0,))
        assert not (tmp_path / "run/seed_5").exists()


def work(folder, kill_before_write):
    """Initialize (once, like `dvc repro`) and train; send SIGKILL to itself before the given write to disk."""
    world, settings = make_world(24, size=32)[0], make_settings()
    # With a teacher, whose weights are one thing more to resume from.
    settings = settings.model_copy(update={"iterate": settings.iterate.model_copy(update={"teacher_decay": 0.7})})
    writes = 0
    replace = os.replace

    def count(*paths):
        nonlocal writes
        writes += 1
        if writes == kill_before_write:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)

    files.os.replace = count
    if not (folder / "initialized").exists():
        initialize(world, folder / "initialize", settings=settings, seeds=[0, 1])
        (folder / "initialized").touch()
    train(world, folder / "initialize", folder / "iterative", method="iterative", settings=settings, seeds=[0, 1])


@pytest.fixture(scope="module")
def spawn():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded", "tests.training.test_training"])

    def run(folder, *, kill_before_write=None, kill_after_s=None):
        folder.mkdir(exist_ok=True)
        process = context.Process(target=work, args=(folder, kill_before_write))
        process.start()
        process.join(kill_after_s)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode

    return run


@pytest.fixture(scope="module")
def reference(spawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    start = time.perf_counter()
    assert spawn(folder) == 0
    assert len(digests(folder)) == 16
    return digests(folder), time.perf_counter() - start


@pytest.mark.slow
class TestKillMinus9:
    def test_before_each_kind_of_write(self, spawn, reference, tmp_path):
        codes = [spawn(tmp_path, kill_before_write=1)]
        # Each start gets one write further than the previous one, until one finishes.
        while codes[-1] != 0:
            assert codes[-1] == -signal.SIGKILL
            codes.append(spawn(tmp_path, kill_before_write=len(codes) + 1))
        assert len(codes) > 6
        assert digests(tmp_path) == reference[0]
        assert not list(tmp_path.rglob("*.tmp"))

    def test_at_random_times(self, spawn, reference, tmp_path):
        rng, kills = random.Random(0), 0
        while spawn(tmp_path, kill_after_s=(0.2 + 0.1 * kills) * reference[1] * rng.random() + 0.1) != 0:
            kills += 1
        assert kills >= 2
        assert digests(tmp_path) == reference[0]
