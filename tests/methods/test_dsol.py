"""DSOL: losses, clusters, classifiers, what it stores per epoch, and that it localizes on an easy set."""

import hashlib
import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray

from pipeline.apps.inspection.verify import verify_artifacts
from pipeline.apps.inspection.views import find_artifacts
from pipeline.common.config import AugmentationSettings, OptimizationSettings
from pipeline.common.errors import CheckpointError, DivergenceError, SettingsError
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.dsol.clusters import cluster, dictionary, linear_classifier, match_clusters
from pipeline.methods.dsol.losses import category_logits, class_masks, correspondence_loss, matching_loss
from pipeline.methods.dsol.method import STAGE_ONE, STAGE_TWO, dsol_head
from pipeline.methods.dsol.objects import object_features
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import build_model
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training.checkpoints import load_model
from pipeline.training.train import initialize, train
from tests.support.easy_world import SHARP, easy_scores, make_easy_world, overfit, train_easily, whole_batch
from tests.support.synthetic import ENCODER, make_settings

NAMES = ("dsol", "dsol_two_stage")


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def units(*shape, seed=0):
    return torch.nn.functional.normalize(numbers(*shape, seed=seed), dim=1)


def distributions(*shape, seed=0):
    return numbers(*shape, seed=seed).softmax(dim=1)


class TestCorrespondence:
    def test_closed_form(self):
        silent, loud = torch.full((3, 4, 4), -40.0), torch.full((3, 4, 4), -40.0)
        loud[:, 1, 2] = 40.0
        assert correspondence_loss(loud, silent, grid=1).item() == pytest.approx(0, abs=1e-9)
        assert correspondence_loss(silent, loud, grid=1).item() == pytest.approx(40)
        zeros = torch.zeros(2, 4, 4)
        assert correspondence_loss(zeros, zeros, grid=2).item() == pytest.approx(math.log(2))
        # One of the four parts is loud: a quarter of the silence term.
        assert correspondence_loss(loud, loud, grid=2).item() == pytest.approx(5)

    @pytest.mark.parametrize("grid", [1, 2, 3])
    def test_naive_loop(self, grid):
        positive, negative = numbers(4, 6, 6), numbers(4, 6, 6, seed=1)
        step, heard, silent = 6 // grid, [], []
        for i in range(4):
            heard.append(-math.log(max(1 / (1 + math.exp(-x)) for x in positive[i].flatten().tolist())))
            for row, col in itertools.product(range(0, 6, step), repeat=2):
                part = negative[i, row : row + step, col : col + step].flatten().tolist()
                silent.append(-math.log(1 - max(1 / (1 + math.exp(-x)) for x in part)))
        expected = (sum(heard) / len(heard) + sum(silent) / len(silent)) / 2
        assert correspondence_loss(positive, negative, grid=grid).item() == pytest.approx(expected, rel=1e-12)

    def test_flips_and_the_order_of_clips_change_nothing(self):
        positive, negative = numbers(4, 6, 6), numbers(4, 6, 6, seed=1)
        loss = correspondence_loss(positive, negative, grid=2)
        torch.testing.assert_close(correspondence_loss(positive.flip(0, 1), negative.flip(0, 2), grid=2), loss)

    @pytest.mark.parametrize("grid", [0, 5])
    def test_a_grid_that_does_not_fit(self, grid):
        with pytest.raises(ValueError, match=rf"silence_grid {grid}\b.*\(4, 4\)"):
            correspondence_loss(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), grid=grid)

    def test_gradient(self):
        inputs = numbers(2, 4, 4).requires_grad_(), numbers(2, 4, 4, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda p, n: correspondence_loss(p, n, grid=2), inputs)


class TestMatching:
    def test_naive_loop(self):
        features, keys, location = units(3, 5, 2, 4), units(6, 5, seed=1), numbers(3, 2, 4, seed=2).sigmoid()
        heard, total = distributions(3, 6, seed=3), 0.0
        for i in range(3):
            logits = []
            for key in keys:
                values = [
                    max(0.0, sum(key[d] * features[i, d, y, x] for d in range(5)).item()) * location[i, y, x].item()
                    for y in range(2)
                    for x in range(4)
                ]
                logits.append(sum(values) / 8 / 0.05)
            normalizer = sum(math.exp(value) for value in logits)
            for p, value in zip(heard[i].tolist(), logits, strict=True):
                total += p * (math.log(p) - math.log(math.exp(value) / normalizer)) / 3
        found = matching_loss(category_logits(class_masks(features, keys), location, temperature=0.05), heard)
        assert found.item() == pytest.approx(total, rel=1e-10)

    def test_equal_distributions_cost_nothing_and_others_do(self):
        heard = distributions(3, 4)
        assert matching_loss(heard.log() + 7, heard).item() == pytest.approx(0, abs=1e-12)
        certain = torch.eye(4, dtype=torch.float64)
        # Certain of one of four, and the image knows nothing: log 4, whatever the number of classes.
        assert matching_loss(torch.zeros(4, 4, dtype=torch.float64), certain).item() == pytest.approx(math.log(4))

    def test_the_order_of_classes_does_not_matter(self):
        logits, heard, order = numbers(3, 4), distributions(3, 4, seed=1), [2, 0, 3, 1]
        torch.testing.assert_close(matching_loss(logits[:, order], heard[:, order]), matching_loss(logits, heard))

    def test_masks_are_where_the_key_is(self):
        features = torch.zeros(1, 3, 1, 3)
        features[0, 0, 0, 0] = features[0, 1, 0, 1] = 1.0
        features[0, 0, 0, 2] = -1.0
        assert class_masks(features, torch.eye(3)[:2])[0, :, 0].tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

    def test_gradient(self):
        def loss(features, location_logits, keys):
            location = location_logits.sigmoid()
            return matching_loss(category_logits(class_masks(features, keys), location, temperature=0.05), heard)

        heard = distributions(2, 3)
        inputs = units(2, 4, 3, 3).requires_grad_(), numbers(2, 3, 3).requires_grad_(), units(3, 4, seed=1)
        assert torch.autograd.gradcheck(loss, inputs)


def blobs(seed=0, per=8):
    """Return three groups of unit rows in shuffled order, and the group of each row."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(3), per))
    return (np.eye(5)[group] + rng.normal(0, 0.05, (3 * per, 5))).astype(np.float32), group


class TestClusters:
    def test_far_groups_are_the_clusters_whatever_the_length_of_the_rows(self):
        features, group = blobs()
        lengths = np.linspace(0.1, 9, len(group), dtype=np.float32)[:, None]
        found = cluster(features * lengths, clusters=3, seed=5)
        assert len({(a, b) for a, b in zip(found, group, strict=True)}) == 3

    def test_seeded(self):
        rng = np.random.default_rng(0)
        features = rng.normal(size=(200, 6)).astype(np.float32)
        first, again, other = (cluster(features, clusters=7, seed=seed) for seed in (1, 1 + 2**32, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_nothing_to_cluster(self):
        with pytest.raises(DivergenceError, match="learning rate"):
            cluster(np.ones((9, 4), dtype=np.float32), clusters=3, seed=0)

    def test_matching_takes_the_best_of_all_renumberings(self):
        rng = np.random.default_rng(0)
        for _ in range(20):
            found, before = rng.integers(0, 4, (2, 30))
            matched = match_clusters(found, before, clusters=4)
            best = max((np.array(order)[found] == before).sum() for order in itertools.permutations(range(4)))
            assert (matched == before).sum() == best
            assert len(set(zip(found, matched, strict=True))) == len(set(found))

    def test_a_renumbered_partition_gets_its_old_numbers_back(self):
        before = np.random.default_rng(0).integers(0, 5, 40)
        np.testing.assert_array_equal(match_clusters((before + 2) % 5, before, clusters=5), before)

    def test_dictionary(self):
        features = np.array([[3.0, 0.0], [1.0, 4.0], [0.0, -2.0]], dtype=np.float32)
        keys = dictionary(features, np.array([2, 2, 0]), clusters=4)
        np.testing.assert_allclose(keys, [[0, -1], [0, 0], [math.sqrt(0.5), math.sqrt(0.5)], [0, 0]], atol=1e-6)


class TestClassifier:
    @pytest.mark.parametrize("classes", [(0, 1, 2), (4, 1, 2), (3, 1, 1)])
    def test_separable_groups(self, classes):
        """Classes without clips are allowed, as long as two classes have some."""
        features, group = blobs()
        target = np.array(classes)[group]
        weights, predicted = linear_classifier(features, target, clusters=5)
        np.testing.assert_array_equal(predicted.argmax(axis=1), target)
        np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-6)
        for number in range(5):
            there = number in classes
            assert np.linalg.norm(weights[number]) == pytest.approx(float(there), abs=1e-6)
            assert there or (predicted[:, number] == 0).all()
        for number in classes:
            response = features @ weights[number]
            assert response[target == number].min() > response[target != number].max()


def method_of(name, *, epochs=2, **changes):
    settings = make_settings(methods={name: {"clusters": 4, "epochs": epochs, **changes}})
    return build_method(name, method_settings(settings, name))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return a function (name, epoch, **changes) → method, model and a batch of all clips, at the start of that epoch.

    Its attributes are the world and the folder of the initial model.
    """
    folder, world = tmp_path_factory.mktemp("start"), make_easy_world(12, 0, size=32)[0]
    settings = make_settings(batch_size=12, initialize=make_settings().initialize.model_copy(update={"epochs": 1}))
    initialize(world, folder, settings=settings, seeds=[0], device="cpu")

    def started(name, epoch, **changes):
        model = load_model(folder / "model.pt").encoders
        labels, method = PseudoLabels.open(folder / "pseudo_labels/epoch_000.h5"), method_of(name, **changes)
        method.prepare(model, n_clips=len(world), classes=())
        for number in range(1, epoch + 1):
            method.start_epoch(model, world, labels, epoch=number, seed=number)
        return method, model, whole_batch(world, previous_response=torch.from_numpy(labels.response))

    started.world, started.folder = world, folder
    return started


# Stage one, and stage two of each row: the stage of an epoch depends on the row.
STAGES = [("dsol", 1, STAGE_TWO), ("dsol_two_stage", 1, STAGE_ONE), ("dsol_two_stage", 2, STAGE_TWO)]


class TestLoss:
    @pytest.mark.parametrize(("name", "epoch", "stage"), STAGES)
    def test_is_the_sum_of_its_terms(self, name, epoch, stage, start):
        method, model, batch = start(name, epoch, correspondence_weight=0.3, silence_grid=2)
        head = dsol_head(model)
        assert head.stage == stage
        assert head.pseudo_class.min() == 0
        assert head.pseudo_class.max() == 3
        features, audio = model.encode_frames(batch.frames), model.encode_audio(batch.log_mel)
        true, false = (
            torch.stack([5 * torch.einsum("dhw,d->hw", features[i], audio[i - shift]) for i in range(12)])
            for shift in (0, 1)
        )
        heard = (audio @ head.audio_classes.weight.T + head.audio_classes.bias) / 0.05
        if stage == STAGE_ONE:
            expected = correspondence_loss(true, false, grid=1)
            for i, kind in enumerate(head.pseudo_class.tolist()):
                cells = features[i][:, batch.previous_response[i] > 0.7].mean(dim=1)
                seen = (head.image_classes.weight @ cells + head.image_classes.bias) / 0.05
                expected -= (seen.log_softmax(0)[kind] + heard[i].log_softmax(0)[kind]) / 12
        else:
            logits = category_logits(class_masks(features, head.dictionary), true.sigmoid(), temperature=0.02)
            target = head.audio_distribution
            expected = matching_loss(logits, target) + 0.3 * correspondence_loss(true, false, grid=2)
            expected -= (target * heard.log_softmax(dim=1)).sum() / 12
        torch.testing.assert_close(method.loss(model, batch), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(("name", "epoch", "stage"), STAGES)
    def test_falls_on_a_few_clips(self, name, epoch, stage, start):
        method, model, batch = start(name, epoch)
        frozen = dsol_head(model).dictionary.clone()
        losses = overfit(method, model, batch, steps=40, learning_rate=2e-3)
        assert losses[-1] < 0.6 * losses[0]
        assert torch.equal(dsol_head(model).dictionary, frozen)

    def test_the_class_layer_follows_the_sounds_without_moving_them(self, start):
        """Without correspondence and with empty masks, only the class layer gets a gradient."""
        method, model, batch = start("dsol", 1, correspondence_weight=0.0)
        dsol_head(model).dictionary.zero_()
        method.loss(model, batch).backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        assert moved == {"heads.dsol.audio_classes.weight", "heads.dsol.audio_classes.bias"}

    @pytest.mark.parametrize(("name", "epoch", "stage"), STAGES)
    def test_bfloat16(self, name, epoch, stage, start):
        method, model, batch = start(name, epoch)
        losses = []
        for enabled in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                losses.append(method.loss(model, batch))
        assert losses[0].dtype == losses[1].dtype == torch.float32
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)

    def test_object_features(self):
        features, response = units(2, 3, 2, 2), torch.tensor([[[1.0, 0.2], [0.9, 0.0]], [[0.1, 0.3], [0.2, 0.0]]])
        found = object_features(features, response, delta_v=0.8)
        torch.testing.assert_close(found[0], (features[0, :, 0, 0] + features[0, :, 1, 0]) / 2)
        torch.testing.assert_close(found[1], features[1, :, 0, 1])  # no cell passes: the best one
        with pytest.raises(ValueError, match="pseudo-labels"):
            object_features(features, None, delta_v=0.8)


class TestStartEpoch:
    def test_weights_and_statistics_stay(self, start):
        _, model, _ = start("dsol_two_stage", 2)
        before = load_model(start.folder / "model.pt").encoders
        after = model.state_dict()
        for name, value in before.state_dict().items():
            assert torch.equal(after[name], value), name

    def test_stage_two_hears_what_stage_one_learned(self, start):
        _, model, batch = start("dsol_two_stage", 2)
        head = dsol_head(model)
        audio = model.eval().encode_audio(batch.log_mel)
        torch.testing.assert_close(head.audio_distribution, (head.audio_classes(audio) / 0.05).softmax(dim=1))

    def test_before_the_first_epoch_there_is_no_loss(self, start):
        method, model, batch = start("dsol", 0)
        with pytest.raises(ValueError, match="start_epoch"):
            method.loss(model, batch)
        with pytest.raises(ValueError, match="pseudo-labels"):
            method.start_epoch(model, start.world, None, epoch=1, seed=0)


class TestSettings:
    def test_a_grid_finer_than_the_maps(self, start):
        # 32 pixels in cells of 8.
        start("dsol", 1, silence_grid=4)
        with pytest.raises(SettingsError, match=r"silence_grid 5\b.* 4 cells"):
            start("dsol", 1, silence_grid=5)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("clusters", 1), ("stage_one_epochs", 0), ("silence_grid", 0), ("match_temperature", 0.0), ("margin", 2)],
    )
    def test_wrong_ones_are_named(self, name, value):
        with pytest.raises(SettingsError, match=f"methods.dsol: .*'{name}'"):
            method_of("dsol", **{name: value})

    def test_no_epoch_for_stage_two(self):
        with pytest.raises(SettingsError, match=r"stage_one_epochs 3\b.* 3 epochs"):
            method_of("dsol_two_stage", epochs=3, stage_one_epochs=3)
        assert method_of("dsol", epochs=3, stage_one_epochs=3).stage_one_epochs == 0

    def test_more_clusters_than_clips(self):
        with pytest.raises(SettingsError, match=r"clusters 4\b.*\b3\b"):
            method_of("dsol").prepare(build_model(ENCODER), n_clips=3, classes=())


def digests(folder):
    paths = [*folder.rglob("*.h5"), *folder.rglob("*.pt")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with an initial run and one of each row (read-only), the world, and a function that trains a row."""
    folder = tmp_path_factory.mktemp("runs")
    world = make_easy_world(24, 0, size=32)[0]
    settings = make_settings(
        methods={
            "dsol": {"epochs": 3, "clusters": 4},
            "dsol_two_stage": {"epochs": 4, "clusters": 4, "stage_one_epochs": 2},
        }
    )
    initialize(world, folder / "initialize", settings=settings, seeds=[0], device="cpu")

    def run(name, out):
        train(world, folder / "initialize", out, method=name, settings=settings, seeds=[0], device="cpu")

    for name in NAMES:
        run(name, folder / name)
    return folder, world, run


class TestRun:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_artifacts_open_in_xarray_and_agree_with_the_models_buffers(self, runs, name):
        folder, world, _ = runs
        trained = load_model(folder / name / "model.pt")
        model, head, epochs = trained.encoders, dsol_head(trained.encoders), trained.description["epoch"]
        for epoch in range(1, epochs + 1):
            with xarray.open_dataset(folder / name / f"pseudo_labels/start_{epoch:03d}.h5", engine="h5netcdf") as made:
                assert [value.decode() for value in made["clip_id"].values] == world.clip_ids
                assert made.sizes == {"clip": 24, "cluster": 4, "feature": model.dim}
                assert (made.attrs["epoch"], made.attrs["method"]) == (epoch, name)
                np.testing.assert_allclose(np.linalg.norm(made["dictionary"].values, axis=1), 1, rtol=1e-5)
                assert set(made["pseudo_class"].values) == {0, 1, 2, 3}
                second = name == "dsol" or epoch > 2
                assert ("audio_distribution" in made) == second
                if second:
                    np.testing.assert_array_equal(made["pseudo_class"].values, head.pseudo_class.numpy())
                    np.testing.assert_array_equal(made["dictionary"].values, head.dictionary.numpy())
                    np.testing.assert_array_equal(made["audio_distribution"].values, head.audio_distribution.numpy())

    def test_what_was_made_before_an_epoch_is_verified(self, runs, tmp_path):
        folder, world, _ = runs
        run = tmp_path / "dsol"
        shutil.copytree(folder / "dsol", run)

        def problems():
            found = verify_artifacts(find_artifacts(run), shards=world)
            return [text for each in found.artifacts for text in each.problems]

        found = verify_artifacts(find_artifacts(run), shards=world)
        assert [Path(each.path).name for each in found.artifacts if "start_" in each.path]
        assert found.n_problems == 0
        path = run / "pseudo_labels" / "start_001.h5"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        (problem,) = problems()
        assert "checksum" in problem
        shutil.copy(run / "pseudo_labels" / "start_002.h5", path)
        assert problems() == ["epoch 2, not 1"]
        shutil.copy(folder / "dsol_two_stage" / "pseudo_labels" / "start_001.h5", path)
        method, fingerprint = problems()
        assert method == "method dsol_two_stage, not dsol"
        assert fingerprint.startswith("fingerprint ")

    def test_clusters_keep_their_numbers_over_the_epochs_of_stage_one(self, runs):
        folder, _, _ = runs
        first, second = (
            xarray.load_dataset(folder / f"dsol_two_stage/pseudo_labels/start_{epoch:03d}.h5", engine="h5netcdf")
            for epoch in (1, 2)
        )
        before, after = first["pseudo_class"].values, second["pseudo_class"].values
        kept = [(np.array(order)[after] == before).mean() for order in itertools.permutations(range(4))]
        assert (after == before).mean() == max(kept) > max(0.5, min(kept))

    @pytest.mark.parametrize("name", NAMES)
    def test_killed_and_resumed_gives_the_same_bytes(self, runs, tmp_path, monkeypatch, name):
        folder, _, run = runs
        calls = itertools.count(1)
        deadly, real = iter((2, 4)), TrainedModel.predict
        due = next(deadly)

        def die_sometimes(*args, **keywords):
            nonlocal due
            if next(calls) == due:
                due = next(deadly, 0)
                raise KeyboardInterrupt
            return real(*args, **keywords)

        deaths = 0
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.training.loop.TrainedModel.predict", die_sometimes)
            while True:
                try:
                    run(name, tmp_path / "run")
                    break
                except KeyboardInterrupt:
                    deaths += 1
                    assert (tmp_path / "run/state.pt").exists()
        assert deaths == 2
        assert digests(tmp_path / "run") == digests(folder / name)

    def test_a_model_of_other_clips_than_it_says(self, runs, tmp_path):
        folder, _, _ = runs
        content = torch.load(folder / "dsol/model.pt", weights_only=True)
        torch.save(content | {"n_clips": 3}, tmp_path / "model.pt")
        with pytest.raises(CheckpointError, match=r"clusters 4\b.*\b3\b"):
            load_model(tmp_path / "model.pt")

    @pytest.mark.parametrize("name", NAMES)
    def test_the_map_weighs_the_class_masks_by_what_is_heard(self, runs, name):
        folder, world, _ = runs
        trained = load_model(folder / name / "model.pt")
        response, audio = trained.predict(world, batch_size=24, device="cpu")
        model, head = trained.encoders, dsol_head(trained.encoders)
        with torch.no_grad():
            frames, log_mel = (torch.from_numpy(values[:3]) for values in (world.frames, world.log_mel))
            features, sounds = model.encode_frames(frames.permute(0, 3, 1, 2)), model.encode_audio(log_mel)
            heard = (head.audio_classes(sounds) / 0.05).softmax(dim=1)
        np.testing.assert_allclose(audio[:3], sounds, atol=1e-5)
        for i, row, col in itertools.product(range(3), range(4), range(4)):
            cell = features[i, :, row, col]
            seen = sum(heard[i, c] * max(0, head.dictionary[c] @ cell) for c in range(4))
            location = 1 / (1 + math.exp(-(head.scale * (cell @ sounds[i])).item()))
            assert response[i, row, col] == pytest.approx(location * seen.item(), abs=1e-5)

    @pytest.mark.parametrize("name", NAMES)
    def test_class_maps_are_the_softmax_of_location_times_masks(self, runs, name):
        folder, world, _ = runs
        trained = load_model(folder / name / "model.pt")
        model, head = trained.encoders, dsol_head(trained.encoders)
        with torch.no_grad():
            frames, log_mel = (torch.from_numpy(values[:2]) for values in (world.frames, world.log_mel))
            frames = frames.permute(0, 3, 1, 2)
            maps = trained.method.class_maps(model, frames, log_mel)
            features, sounds = model.encode_frames(frames), model.encode_audio(log_mel)
        assert maps.shape == (2, 4, 4, 4)
        for i, row, col in itertools.product(range(2), range(4), range(4)):
            cell = features[i, :, row, col]
            location = 1 / (1 + math.exp(-(head.scale * (cell @ sounds[i])).item()))
            powers = [math.exp(location * max(0, (head.dictionary[c] @ cell).item()) / 0.05) for c in range(4)]
            np.testing.assert_allclose(maps[i, :, row, col], np.array(powers) / sum(powers), atol=1e-4)

    def test_there_are_no_class_maps_before_stage_two(self, runs):
        model = load_model(runs[0] / "dsol/model.pt")
        dsol_head(model.encoders).stage.fill_(STAGE_ONE)
        with pytest.raises(ValueError, match="before stage two"):
            model.method.class_maps(model.encoders, torch.zeros(1, 3, 32, 32), torch.zeros(1, 16, 32))


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """Shards, and the folder in which both forms share an initialization."""
    return make_easy_world(144, 0)[0], tmp_path_factory.mktemp("easy")


@torch.no_grad()
def unseen_terms(model, world, labels):
    """Return the correspondence loss of unseen clips, and the share of them whose kind is the main one of the class heard."""
    head, batch = dsol_head(model.encoders), whole_batch(world)
    features, audio = model.encoders.encode_frames(batch.frames), model.encoders.encode_audio(batch.log_mel)
    true, false = (head.location_logits(features, other) for other in (audio, audio.roll(1, 0)))
    heard = head.audio_classes(audio).argmax(dim=1).numpy()
    purity = sum(np.bincount(labels[heard == number]).max() for number in set(heard)) / len(labels)
    return correspondence_loss(true, false, grid=1).item(), purity


# Mean ± SD of nine runs with initial weights perturbed by 1e-6, three on each of three CPU capabilities:
#   dsol: 2.55 ± 0.04 × blind, 0.49 ± 0.05 above shuffled; correspondence 0.556 ± 0.006, purity always 1
#   dsol_two_stage: 2.33 ± 0.17 × blind, 0.35 ± 0.05 above shuffled; correspondence 0.553 ± 0.007, purity always 1
# Of nine unperturbed runs of dsol_two_stage with three seeds, three put two kinds into one cluster of stage one, and one of these
# found nothing: its test needs one good seed of three, the best of which were 2.37, 2.45 and 2.61 × blind. A wrong method fails with all.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seeds", "times_blind", "above_shuffled"),
    [("dsol", [0], 2.3, 0.25), ("dsol_two_stage", [0, 1, 2], 1.7, 0.15)],
)
def test_localizes_an_easy_set(easy, name, seeds, times_blind, above_shuffled):
    shards, folder = easy
    own = {"stage_one_epochs": 2, "clusters": 4, "learning_rate": 3e-3}
    settings = make_settings(
        batch_size=16,
        encoder=SHARP,
        augmentation=AugmentationSettings(flip=True),
        initialize=OptimizationSettings(epochs=5, temperature=0.1, learning_rate=3e-3, weight_decay=1e-4),
        methods={"dsol": {**own, "epochs": 8}, "dsol_two_stage": {**own, "epochs": 10}},
    )
    unseen, boxes, labels = make_easy_world(48, 1)
    for seed in seeds:
        model = train_easily(folder / f"{seed}", name, shards, settings, seed=seed)
        found, shuffled, blind = easy_scores(model, unseen, boxes)
        relative, margin = found / blind, found - shuffled
        if relative > times_blind and margin > above_shuffled:
            break
    assert relative > times_blind
    assert margin > above_shuffled
    # Initialization alone finds the objects. These two show what stage two has to learn: with the pairs swapped, the loss is
    # above 0.8; with shuffled pseudo-classes, the purity is below 0.7.
    correspondence, purity = unseen_terms(model, unseen, labels)
    assert correspondence < 0.7
    assert purity > 0.7
