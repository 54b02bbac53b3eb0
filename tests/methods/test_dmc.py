"""DMC: the clustering, its distances and loss, and that the method localizes on an easy set."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.common.config import AugmentationSettings, OptimizationSettings, load_params
from pipeline.common.errors import SettingsError
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.dmc import (
    distances,
    margin_loss,
    pair_distances,
    soft_k_means,
    sounding_assignments,
    spread_cells,
)
from pipeline.model.encoders import build_model
from tests.support.easy_world import SHARP, easy_scores, make_easy_world, overfit, train_easily, whole_batch
from tests.support.synthetic import ENCODER, make_settings


def unit_cells(*shape, seed=0, dtype=torch.float64):
    cells = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return torch.nn.functional.normalize(cells, dim=-1)


def naive_k_means(cells, centers, sharpness, rounds):
    """Soft k-means of one frame's cells (p, d) from centers (K, d), with loops."""

    def assign():
        rows = []
        for cell in cells:
            weights = [math.exp(-sharpness * math.dist(cell, center)) for center in centers]
            rows.append([weight / sum(weights) for weight in weights])
        return rows

    for _ in range(rounds):
        rows = assign()
        for j in range(len(centers)):
            total = sum(row[j] for row in rows)
            centers[j] = sum(row[j] * cell for row, cell in zip(rows, cells, strict=True)) / total
    return np.array(centers), np.array(assign())


class TestDistances:
    def test_are_euclidean(self):
        x, y = unit_cells(2, 5, 3), unit_cells(2, 4, 3, seed=1)
        expected = [[[math.dist(p, q) for q in ys.tolist()] for p in xs.tolist()] for xs, ys in zip(x, y, strict=True)]
        np.testing.assert_allclose(distances(x, y), expected, rtol=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_of_equal_points_are_equal_with_a_finite_gradient(self, dtype):
        x = unit_cells(1, 1, 16, dtype=dtype).repeat(1, 6, 1).requires_grad_()
        found = distances(x, x)
        assert (found == found[0, 0, 0]).all()
        assert found[0, 0, 0].item() == pytest.approx(1e-3)
        found.sum().backward()
        assert torch.isfinite(x.grad).all()


class TestInitialCenters:
    def test_the_most_typical_cell_and_then_the_farthest(self):
        cells = torch.tensor([[[9.0, 0.0], [0.0, 0.0], [0.5, 0.0], [0.0, 4.0], [0.3, 0.3]]])  # the mean is (1.96, 0.86)
        assert spread_cells(cells, 4)[0].tolist() == [[0.5, 0.0], [9.0, 0.0], [0.0, 4.0], [0.0, 0.0]]

    def test_follow_the_cells_when_these_are_permuted(self):
        cells, order = unit_cells(3, 20, 4), torch.randperm(20, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(spread_cells(cells[:, order], 3), spread_cells(cells, 3), rtol=0, atol=0)

    def test_fewer_cells_than_centers(self):
        cells = unit_cells(1, 2, 3)
        assert {tuple(row) for row in spread_cells(cells, 4)[0].tolist()} == {tuple(row) for row in cells[0].tolist()}


class TestSoftKMeans:
    @pytest.mark.parametrize("count", [1, 2, 3])
    @pytest.mark.parametrize("sharpness", [0.5, 6.0, 30.0])
    @pytest.mark.parametrize("rounds", [1, 4])
    def test_naive_loop(self, count, sharpness, rounds):
        cells, initial = unit_cells(2, 9, 5), unit_cells(2, count, 5, seed=1)
        centers, assignments = soft_k_means(cells, initial, sharpness=sharpness, rounds=rounds)
        for i in range(2):
            expected = naive_k_means(cells[i].numpy(), list(initial[i].numpy()), sharpness, rounds)
            np.testing.assert_allclose(centers[i], expected[0], atol=1e-10)
            np.testing.assert_allclose(assignments[i], expected[1], atol=1e-10)

    def test_two_far_groups_become_the_clusters(self):
        groups = torch.eye(4)[None, :2].repeat_interleave(torch.tensor([5, 3]), dim=1)  # 5 cells e0, 3 cells e1
        centers, assignments = soft_k_means(groups, spread_cells(groups, 2), sharpness=30.0, rounds=4)
        torch.testing.assert_close(centers, torch.eye(4)[None, :2], atol=1e-6, rtol=0)
        torch.testing.assert_close(assignments[0, :, 0], torch.tensor([1.0] * 5 + [0.0] * 3), atol=1e-6, rtol=0)

    def test_the_order_of_cells_does_not_matter(self):
        cells, initial = unit_cells(2, 30, 6), unit_cells(2, 3, 6, seed=1)
        order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
        centers, assignments = soft_k_means(cells, initial, sharpness=10.0, rounds=4)
        moved = soft_k_means(cells[:, order], initial, sharpness=10.0, rounds=4)
        torch.testing.assert_close(moved[0], centers)
        torch.testing.assert_close(moved[1], assignments[:, order])

    def test_the_order_of_centers_is_theirs(self):
        cells, initial = unit_cells(2, 30, 6), unit_cells(2, 3, 6, seed=1)
        centers, assignments = soft_k_means(cells, initial, sharpness=10.0, rounds=4)
        moved = soft_k_means(cells, initial[:, [2, 0, 1]], sharpness=10.0, rounds=4)
        torch.testing.assert_close(moved[0], centers[:, [2, 0, 1]])
        torch.testing.assert_close(moved[1], assignments[..., [2, 0, 1]])

    @pytest.mark.parametrize("sharpness", [30.0, 1e4])
    def test_all_cells_equal(self, sharpness):
        cells = unit_cells(1, 1, 8, dtype=torch.float32).repeat(2, 6, 1).requires_grad_()
        centers, assignments = soft_k_means(cells, spread_cells(cells, 3), sharpness=sharpness, rounds=4)
        torch.testing.assert_close(centers, cells[:, :3], atol=1e-6, rtol=0)
        torch.testing.assert_close(assignments, torch.full((2, 6, 3), 1 / 3))
        (centers.square().sum() + assignments[..., 0].sum()).backward()
        assert torch.isfinite(cells.grad).all()

    def test_a_center_far_from_all_cells_stays_finite(self):
        """In float32 the assignments to it are 0, so dividing by their sum would give NaN."""
        cells = torch.zeros(1, 4, 2).index_fill(2, torch.tensor([0]), 1.0).requires_grad_()
        initial = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
        centers, _ = soft_k_means(cells, initial, sharpness=1e4, rounds=2)
        centers.square().sum().backward()
        torch.testing.assert_close(centers, cells[:, :2].detach(), atol=1e-6, rtol=0, check_stride=False)
        assert torch.isfinite(cells.grad).all()

    @pytest.mark.parametrize(
        ("shapes", "numbers", "message"),
        [
            (((2, 3, 4), (2, 2, 5)), (1.0, 1), r"\(2, 3, 4\) and centers \(2, 2, 5\)"),
            (((2, 3, 4), (1, 2, 4)), (1.0, 1), r"\(1, 2, 4\)"),
            (((2, 3, 4), (2, 2, 4)), (0.0, 1), "0.0 and 1"),
            (((2, 3, 4), (2, 2, 4)), (1.0, 0), "1.0 and 0"),
        ],
    )
    def test_mistakes(self, shapes, numbers, message):
        with pytest.raises(ValueError, match=message):
            soft_k_means(*(torch.zeros(shape) for shape in shapes), sharpness=numbers[0], rounds=numbers[1])


class TestLoss:
    def test_closed_form(self):
        pairs = torch.tensor([[0.2, 1.0], [2.0, 0.4]])
        # ½ (mean(0.04, 0.16) + mean(0.5², 0))
        assert margin_loss(pairs, margin=1.5).item() == pytest.approx(0.5 * (0.1 + 0.125))
        assert margin_loss(1.5 * (1 - torch.eye(3)), margin=1.5).item() == 0

    @pytest.mark.parametrize(("visual", "audio"), [(2, 1), (3, 2), (1, 1)])
    @pytest.mark.parametrize("margin", [0.3, 1.2, 2.0])
    def test_naive_loop(self, visual, audio, margin):
        v, a = unit_cells(4, visual, 5) * 0.7, unit_cells(4, audio, 5, seed=1) * 0.4
        total = 0.0
        for i in range(4):
            for j in range(4):
                nearest = [
                    min(math.dist(x / np.linalg.norm(x), y / np.linalg.norm(y)) for x in v[i].numpy())
                    for y in a[j].numpy()
                ]
                distance = sum(nearest) / audio
                total += distance**2 / 8 if i == j else max(0, margin - distance) ** 2 / 24
        assert margin_loss(pair_distances(v, a), margin=margin).item() == pytest.approx(total, rel=1e-9)

    def test_the_order_of_clips_does_not_matter(self):
        v, a, order = unit_cells(5, 3, 4), unit_cells(5, 2, 4, seed=1), torch.tensor([3, 1, 4, 0, 2])
        losses = [margin_loss(pair_distances(v[i], a[i]), margin=1.2) for i in (slice(None), order)]
        torch.testing.assert_close(*losses)

    @pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
    def test_mistakes(self, shape):
        with pytest.raises(ValueError, match=rf"\({shape[0]}, {shape[1]}\)"):
            margin_loss(torch.zeros(shape), margin=1.0)

    @pytest.mark.parametrize("sources", [1, 2])
    def test_gradient(self, sources):
        def loss(frames, sounds):
            visual, audio = (
                soft_k_means(cells, spread_cells(cells, count), sharpness=5.0, rounds=3)[0]
                for cells, count in ((frames, sources + 1), (sounds, sources))
            )
            return margin_loss(pair_distances(visual, audio), margin=1.7)

        cells = unit_cells(3, 6, 4).requires_grad_(), unit_cells(3, 5, 4, seed=1).requires_grad_()
        assert loss(*cells).item() > 0.1
        assert torch.autograd.gradcheck(loss, cells)


class TestMap:
    def test_the_winning_cluster(self):
        assignments = torch.tensor([[[0.7, 0.3], [0.1, 0.9]]])
        visual = torch.tensor([[[1.0, 0.0], [0.0, 0.1]]])  # a short center has the same direction
        for audio, expected in (([0.2, 0.1], [0.7, 0.1]), ([0.1, 0.2], [0.3, 0.9])):
            torch.testing.assert_close(
                sounding_assignments(assignments, visual, torch.tensor([[audio]])), torch.tensor([expected])
            )

    def test_several_sources_give_the_largest_of_their_clusters(self):
        assignments = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]])
        visual = torch.eye(3)[None]
        both = sounding_assignments(assignments, visual, torch.eye(3)[None, [2, 0]])
        torch.testing.assert_close(both, torch.tensor([[0.7, 0.3]]))
        twice_the_same = sounding_assignments(assignments, visual, torch.eye(3)[None, [2, 2]])
        torch.testing.assert_close(twice_the_same, torch.tensor([[0.1, 0.3]]))


def method_of(**changes):
    return build_method("dmc", method_settings(make_settings(methods={"dmc": changes}), "dmc"))


def model_with(method):
    torch.manual_seed(0)
    model = build_model(ENCODER)
    method.prepare(model, n_clips=16, classes=())
    return model


class TestMethod:
    # 0.10 ± 0.02 and 0.26 ± 0.05 (most 0.40) in 15 runs disturbed as below.
    @pytest.mark.parametrize(("sources", "falls_to"), [(1, 0.2), (2, 0.5)])
    def test_loss_falls_on_a_few_clips(self, sources, falls_to):
        method = method_of(sources=sources, margin=1.4)  # with 2, the kinds cannot all be far enough apart
        batch = whole_batch(make_easy_world(16, 0, size=32)[0])
        model = model_with(method)
        losses = overfit(method, model, batch, steps=25, learning_rate=2e-3)
        assert losses[-1] < falls_to * losses[0]
        assert all(parameter.grad is not None for head in model.heads.values() for parameter in head.parameters())

    def test_starts_from_the_shared_encoders(self):
        """With one source and identity layers, the embedding is the mean of the normalized audio cells."""
        method, batch = method_of(), whole_batch(make_easy_world(4, 0, size=32)[0])
        model = model_with(method).eval()
        response, audio = method.localize(model, batch.frames, batch.log_mel)
        assert response.shape == (4, 4, 4)
        assert ((response >= 0) & (response <= 1)).all()
        features = model.audio_projection(model.audio(_standard(batch.log_mel)[:, None]).flatten(2).mT)
        cells = torch.nn.functional.normalize(model.audio_norm(features.mT), dim=1)
        torch.testing.assert_close(audio, torch.nn.functional.normalize(cells.mean(dim=2), dim=1))

    def test_bfloat16(self):
        method, batch = method_of(sources=2), whole_batch(make_easy_world(16, 0, size=32)[0])
        losses = []
        for enabled in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                losses.append(method.loss(model_with(method).train(), batch))
        assert losses[0].dtype == losses[1].dtype == torch.float32
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)

    @pytest.mark.parametrize(
        ("name", "value"), [("sources", 0), ("rounds", 0), ("sharpness", 0.0), ("margin", 2.5), ("clusters", 3)]
    )
    def test_wrong_settings(self, name, value):
        with pytest.raises(SettingsError, match=f"methods.dmc: .*'{name}'"):
            method_of(**{name: value})


def test_sources_of_the_papers_datasets():
    """One on Flickr, two on MUSIC-Synthetic. All other settings are shared, except DSOL's grid, which is for mosaics."""
    blocks = load_params(Path(__file__).parents[2] / "params.yaml").training
    assert [method_settings(blocks[name], "dmc").sources for name in ("soundnet_flickr", "music_synthetic")] == [1, 2]
    flickr, music = (
        block.model_dump(exclude={"methods": {"dmc", "dsol", "dsol_two_stage"}})
        for block in (blocks["soundnet_flickr"], blocks["music_synthetic"])
    )
    assert flickr == music


def _standard(log_mel):
    std, mean = torch.std_mean(log_mel, dim=(1, 2), keepdim=True, correction=0)
    return (log_mel - mean) / std


@pytest.mark.slow
def test_localizes_an_easy_set(tmp_path):
    # Assignments are nearly 0 or 1: where a cell's view is larger than the cell, the map is larger than the object. Trained
    # longer, the clusters split the object in some frames, and in which is up to the last bits.
    settings = make_settings(
        batch_size=24,
        encoder=SHARP,
        augmentation=AugmentationSettings(flip=True),
        initialize=OptimizationSettings(epochs=2, temperature=0.1, learning_rate=2e-3, weight_decay=1e-4),
        methods={"dmc": {"epochs": 2, "learning_rate": 2e-3, "margin": 1.4}},
    )
    model = train_easily(tmp_path, "dmc", make_easy_world(96, 0)[0], settings)
    unseen, boxes, _ = make_easy_world(48, 1)
    found, shuffled, blind = easy_scores(model, unseen, boxes)
    with torch.no_grad():
        unseen_loss = model.method.loss(model.encoders, whole_batch(unseen)).item()
    # Mean ± SD of 15 runs with initial weights perturbed by 1e-6, five on each of three CPU capabilities:
    # 2.28 ± 0.02 × blind, 0.31 ± 0.02 above shuffled (least 0.29); of 12 runs, four on each: a loss of 0.38 ± 0.01.
    assert found > 2 * blind
    assert found > shuffled + 0.2
    # The clusters find the object before they learn to be near its sound; the loss is 0.60 then.
    assert unseen_loss < 0.45
