"""The row "Attention": its losses, its attention, and that it learns to localize."""

import math

import numpy as np
import pytest
import torch

from pipeline.common.config import AugmentationSettings, OptimizationSettings
from pipeline.common.errors import SettingsError
from pipeline.manifests.boxes import Box
from pipeline.methods.attention import EMBEDDING, QUERY, another_clip, attend, margin_loss, triplet_loss
from pipeline.methods.build import build_method, method_settings
from pipeline.model.encoders import build_model
from pipeline.training.batches import training_batches
from pipeline.training.history import read_history
from tests.support.easy_world import easy_scores, make_easy_world, overfit, train_easily, whole_batch
from tests.support.synthetic import CELL, ENCODER, make_settings, make_world

OWN = {"temperature": 0.1}
FORMS = ("contrastive", "triplet")


def features(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(seed=0, **own):
    """Return the method and a model with random weights."""
    method = build_method(
        "attention", method_settings(make_settings(methods={"attention": {**OWN, **own}}), "attention")
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(ENCODER)
        method.prepare(model, n_clips=8, classes=[])
    return method, model


def batches(shards, *, size, epoch=0):
    return training_batches(
        shards, batch_size=size, augmentation=AugmentationSettings(flip=True), cell_stride=CELL, key=(epoch,),
        previous=None, device=torch.device("cpu"),
    )  # fmt: skip


class TestTripletLoss:
    def test_equal_distances_cost_a_half(self):
        audio = torch.tensor([[1.0, 0.0]])
        assert triplet_loss(torch.zeros(1, 2), audio, -audio).item() == pytest.approx(0.5)

    def test_closed_form(self):
        visual, audio, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
        near = 1 / (1 + math.exp(2))  # d⁺ = 0, d⁻ = 2
        assert triplet_loss(visual, audio, other).item() == pytest.approx(2 * near**2)
        assert triplet_loss(visual, other, audio).item() == pytest.approx(2 * (1 - near) ** 2)

    def test_the_sources_formula_clip_by_clip(self):
        visual, audio, other = (features(7, 5, seed=seed) for seed in range(3))
        total = 0.0
        for f, own, wrong in zip(visual.numpy(), audio.numpy(), other.numpy(), strict=True):
            distances = [math.sqrt(((f - own) ** 2).sum()), math.sqrt(((f - wrong) ** 2).sum())]
            exps = [math.exp(d) for d in distances]
            total += (exps[0] / sum(exps) - 0) ** 2 + (exps[1] / sum(exps) - 1) ** 2
        assert triplet_loss(visual, audio, other).item() == pytest.approx(total / 7)

    def test_gradient(self):
        inputs = [features(4, 3, seed=seed).requires_grad_() for seed in range(3)]
        assert torch.autograd.gradcheck(triplet_loss, inputs)

    def test_gradient_is_finite_where_a_distance_is_zero(self):
        visual = features(3, 4).requires_grad_()
        triplet_loss(visual, visual.detach().clone(), features(3, 4, seed=1)).backward()
        assert torch.isfinite(visual.grad).all()


class TestMarginLoss:
    def test_closed_form(self):
        visual, audio = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
        far, near = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.25, 0.0]])
        assert margin_loss(visual, far, audio, margin=1.0).item() == pytest.approx(0.5 * (25 + 0) / 2)
        assert margin_loss(audio, near, audio, margin=1.0).item() == pytest.approx(0.5 * (0 + 0.75**2) / 2)

    @pytest.mark.parametrize("margin", [0.5, 2.0, 10.0])
    def test_the_sources_formula_pair_by_pair(self, margin):
        visual, other, audio = (features(6, 4, seed=seed).numpy() for seed in range(3))
        pairs = [(v, a, 1) for v, a in zip(visual, audio, strict=True)]
        pairs += [(v, a, 0) for v, a in zip(other, audio, strict=True)]
        total = 0.0
        for v, a, right in pairs:
            distance = math.sqrt(sum((x - y) ** 2 for x, y in zip(v, a, strict=True)))
            total += 0.5 * (right * distance**2 + (1 - right) * max(margin - distance, 0) ** 2)
        found = margin_loss(*map(torch.from_numpy, (visual, other, audio)), margin=margin)
        assert found.item() == pytest.approx(total / len(pairs))

    def test_gradient(self):
        inputs = [features(4, 3, seed=seed).requires_grad_() for seed in range(3)]
        assert torch.autograd.gradcheck(lambda *args: margin_loss(*args, margin=2.5), inputs)

    @pytest.mark.parametrize("margin", [0.0, -1.0, math.inf, math.nan])
    def test_impossible_margin(self, margin):
        with pytest.raises(ValueError, match=f"margin.*{margin}"):
            margin_loss(*[torch.zeros(1, 2)] * 3, margin=margin)


@pytest.mark.parametrize("loss", [triplet_loss, lambda *args: margin_loss(*args, margin=1.0)])
class TestBothLosses:
    def test_half_precision_is_computed_in_float32(self, loss):
        inputs = [features(6, 4, seed=seed, dtype=torch.float32).bfloat16() for seed in range(3)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(*inputs)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(loss(*(x.double() for x in inputs)).item(), rel=1e-5)

    def test_the_order_of_the_clips_does_not_matter(self, loss):
        inputs, order = [features(6, 4, seed=seed) for seed in range(3)], torch.tensor([3, 0, 5, 1, 4, 2])
        assert loss(*(x[order] for x in inputs)).item() == pytest.approx(loss(*inputs).item())

    def test_shapes_that_do_not_fit(self, loss):
        with pytest.raises(ValueError, match=r"\(2, 4\).*\(2, 3\)"):
            loss(torch.zeros(2, 4), torch.zeros(2, 3), torch.zeros(2, 3))
        with pytest.raises(ValueError, match="k > 0"):
            loss(*[torch.zeros(0, 4)] * 3)


class TestAttend:
    @pytest.mark.parametrize("temperature", [0.2, 1.0])
    def test_naive_loop(self, temperature):
        cells, query = features(2, 4, 3, 2), features(2, 4, seed=1)
        found = attend(cells, query, temperature=temperature)
        for i in range(2):
            places = [(row, col) for row in range(3) for col in range(2)]
            weights = [math.exp(float(cells[i, :, r, c] @ query[i]) / temperature) for r, c in places]
            expected = sum(w * cells[i, :, r, c] for w, (r, c) in zip(weights, places, strict=True)) / sum(weights)
            torch.testing.assert_close(found[i], expected)

    def test_a_query_that_fits_no_cell_better_takes_the_mean(self):
        cells = features(2, 4, 3, 3)
        torch.testing.assert_close(attend(cells, torch.zeros(2, 4), temperature=1.0), cells.mean(dim=(2, 3)))

    def test_low_temperature_takes_the_best_cell(self):
        cells, query = features(1, 4, 3, 3), features(1, 4, seed=1)
        best = (cells[0].flatten(1).T @ query[0]).argmax()
        torch.testing.assert_close(attend(cells, query, temperature=1e-4)[0], cells[0].flatten(1)[:, best])

    def test_gradient(self):
        inputs = [features(2, 3, 2, 2).requires_grad_(), features(2, 3, seed=1).requires_grad_()]
        assert torch.autograd.gradcheck(lambda *args: attend(*args, temperature=0.5), inputs)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
    def test_impossible_temperature(self, temperature):
        with pytest.raises(ValueError, match=f"temperature.*{temperature}"):
            attend(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2), temperature=temperature)


class TestNegatives:
    def test_never_the_clip_itself_and_every_other_equally_often(self):
        generator = torch.Generator().manual_seed(0)
        draws = torch.stack([another_clip(4, generator=generator) for _ in range(3000)])
        counts = torch.stack([(draws == other).sum(dim=0) for other in range(4)], dim=1)  # clip, other
        assert (counts.diagonal() == 0).all()
        others = counts[~torch.eye(4, dtype=torch.bool)]
        assert (others - 1000).abs().max() < 5 * math.sqrt(3000 / 3 * 2 / 3)

    def test_a_clip_alone(self):
        with pytest.raises(ValueError, match=r"at least 2 clips.*got 1"):
            another_clip(1, generator=torch.Generator())

    @pytest.mark.parametrize("form", FORMS)
    def test_they_follow_from_the_batch(self, form):
        shards, _, _ = make_easy_world(8, 0)
        method, model = make(loss=form)
        first, again = (method.loss(model, next(batches(shards, size=8))).item() for _ in range(2))
        other = method.loss(model, next(batches(shards, size=8, epoch=1))).item()
        assert first == again != other


class TestMethod:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_layer_of_the_heads_and_both_encoders_learn(self, form):
        shards, _, _ = make_easy_world(8, 0)
        method, model = make(loss=form)
        # The first layers of the heads get a gradient from the second step on, because the last ones start at zero.
        overfit(method, model, whole_batch(shards), steps=1, learning_rate=1e-3)
        model.zero_grad()
        method.loss(model.train(), next(batches(shards, size=8))).backward()
        still = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
        assert not {name for name in still if name.startswith("heads.")}
        assert {name.split(".")[1] for name in model.state_dict() if name.startswith("heads.")} == {QUERY, EMBEDDING}
        assert model.visual.conv1.weight.grad.abs().max() > 0
        assert model.audio.conv1.weight.grad.abs().max() > 0

    def test_contrastive_puts_the_sound_before_another_frame(self):
        """The loss recomputed from the model's parts; the generator draws the wrong frame of each pair."""
        shards, _, _ = make_easy_world(6, 0)
        method, model = make(loss="contrastive", margin=1.5)
        batch = next(batches(shards, size=6))
        other = another_clip(6, generator=torch.Generator().set_state(batch.generator.get_state()))
        visual, sound = model.eval().encode_frames(batch.frames), model.encode_audio(batch.log_mel)
        query = torch.nn.functional.normalize(model.heads[QUERY](sound), dim=1)
        right, wrong = (
            model.heads[EMBEDDING](attend(cells, query, temperature=0.1)) for cells in (visual, visual[other])
        )
        expected = margin_loss(right, wrong, sound, margin=1.5)
        torch.testing.assert_close(method.loss(model, batch), expected)

    @torch.no_grad()
    def test_training_starts_from_the_initialization(self):
        """Both heads are the identity, so the map is that of Eq. 1."""
        shards, _, _ = make_easy_world(6, 0)
        method, model = make()
        frames, log_mel = (torch.from_numpy(part) for part in shards.read(range(6)))
        frames = frames.permute(0, 3, 1, 2)
        maps, audio = method.localize(model.eval(), frames, log_mel)
        torch.testing.assert_close(maps, torch.einsum("kdhw,kd->khw", model.encode_frames(frames), audio))

    @torch.no_grad()
    def test_maps_are_the_logits_of_the_attention(self):
        shards, _, _ = make_easy_world(6, 0)
        method, model = make(temperature=0.3)
        frames, log_mel = (torch.from_numpy(part) for part in shards.read(range(6)))
        frames = frames.permute(0, 3, 1, 2)
        maps, audio = method.localize(model.eval(), frames, log_mel)
        assert maps.shape == (6, 64 // CELL, 64 // CELL)
        assert maps.abs().max() <= 1 + 1e-6
        torch.testing.assert_close(audio.norm(dim=1), torch.ones(6))
        cells = model.encode_frames(frames)
        weights = torch.softmax(maps.flatten(1) / 0.3, dim=1)
        query = torch.nn.functional.normalize(model.heads[QUERY](audio), dim=1)
        torch.testing.assert_close((cells.flatten(2) * weights[:, None]).sum(2), attend(cells, query, temperature=0.3))

    def test_wrong_settings(self):
        for own, message in (({"loss": "tripled"}, "'loss'.*'tripled'"), ({"margin": 0.0}, "'margin'.*got 0.0")):
            with pytest.raises(SettingsError, match=message):
                make(**own)


class TestLearning:
    @pytest.mark.parametrize("form", FORMS)
    def test_the_loss_falls_on_a_few_clips(self, form):
        method, model = make(loss=form)
        losses = overfit(method, model, whole_batch(make_easy_world(16, 3)[0]), steps=30, learning_rate=1e-2)
        assert np.mean(losses[-5:]) < 0.7 * losses[0]

    @pytest.mark.slow
    def test_it_localizes_an_easy_set(self, tmp_path):
        model = train_easily(tmp_path, "attention", make_easy_world(96, 0)[0], easy_settings(start=4, epochs=16))
        found, _, blind = easy_scores(model, *make_easy_world(48, 1)[:2])
        # Mean ± SD of 3 runs with initial weights perturbed by 1e-6: 0.21 ± 0.01.
        assert found > blind + 0.1

    @pytest.mark.slow
    def test_it_listens_where_another_object_is_silent(self, tmp_path):
        """With one object per frame, the loss finds it regardless of the audio, so a control would be uninformative."""
        unseen, corners = make_world(48, seed=1)
        boxes = [
            Box(clip_id, "", "test", True, *(value / 64 for value in (left, top, right, bottom)))
            for clip_id, (top, left, bottom, right) in zip(unseen.clip_ids, corners, strict=True)
        ]
        world, scores, shares = make_world(192)[0], [], []
        for seed in range(3):
            folder, settings = tmp_path / f"{seed}", easy_settings(start=8, epochs=10)
            scores.append(easy_scores(train_easily(folder, "attention", world, settings, seed=seed), unseen, boxes))
            shares.append(read_history(folder / "attention/history.csv")[-1]["loss_share"])
        # Heads with random weights end at 1: all audio at one point, half a margin from the constant f.
        assert max(shares) < 0.9
        found, shuffled, blind = np.mean(scores, axis=0)
        # One run, its initial weights perturbed by 1e-6, is 0.078 ± 0.027 above blind and 0.077 ± 0.024 above shuffled; with the
        # query of another clip it is 0 above shuffled. The mean of three varies by a factor of √3 less.
        assert found > blind + 0.03
        assert found > shuffled + 0.03


def easy_settings(*, start, epochs):
    return make_settings(
        batch_size=16,
        augmentation=AugmentationSettings(flip=True),
        initialize=OptimizationSettings(epochs=start, temperature=0.1, learning_rate=3e-3, weight_decay=1e-4),
        methods={"attention": {**OWN, "epochs": epochs, "learning_rate": 5e-3}},
    )
