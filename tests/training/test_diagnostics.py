"""Diagnostics of training: closed forms, independent loops, degenerate input, and the warning of a collapsed run."""

import csv
import math

import numpy as np
import pytest
import torch

from pipeline.common.config import OptimizationSettings
from pipeline.common.errors import TrainingError
from pipeline.common.seeding import evenly_spaced
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.contrastive import Contrastive
from pipeline.methods.registry import METHODS
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import build_model
from pipeline.training.checkpoints import load_model
from pipeline.training.diagnostics import (
    COLUMNS,
    SAMPLE,
    audio_gap,
    border_peaks,
    collapse,
    diagnose,
    effective_rank,
    mean_cosine,
)
from pipeline.training.history import HISTORY, LOGGED, read_history
from pipeline.training.live.lines import report_epoch
from pipeline.training.train import initialize, train
from tests.support.synthetic import ENCODER, MemoryShards, make_settings, make_world

CPU = torch.device("cpu")
PHASE = {"temperature": 0.1, "learning_rate": 1e-3, "weight_decay": 1e-4}


def peaks_at(*cells, size=4):
    """Return one map per cell, 1 there and 0 elsewhere."""
    maps = np.zeros((len(cells), size, size))
    for i, cell in enumerate(cells):
        maps[i][cell] = 1
    return maps


def make_model(name="initial", *, seed=0, n_clips=24, encoder=ENCODER):
    """Return an untrained model of a method."""
    torch.manual_seed(seed)
    method = build_method(name, method_settings(make_settings(), name))
    encoders = build_model(encoder)
    method.prepare(encoders, n_clips=n_clips, classes=["kind0", "kind1", "kind2"])
    return TrainedModel(encoders.eval(), method)


def row(**values):
    """Return a row of a healthy run after its first epoch."""
    healthy = {"border_peaks": 0.3, "border_cells": 0.4, "audio_cosine": 0.3, "audio_gap": 0.1, "loss_share": 0.9}
    return {"epoch": 1, "steps": 50, **healthy, "audio_rank": 20.0, "visual_rank": 40.0, **values}


class TestEffectiveRank:
    @pytest.mark.parametrize("n", [1, 3, 8])
    def test_equal_singular_values_count_the_dimensions(self, n):
        assert effective_rank(np.eye(8)[:n] * 5) == pytest.approx(n)

    def test_a_known_spectrum(self):
        # Shares 1/2, 1/4, 1/4 have an entropy of 1.5 bits.
        assert effective_rank(np.diag([2.0, 1.0, 1.0, 0.0])) == pytest.approx(2**1.5, rel=1e-6)

    def test_vectors_on_one_line(self):
        assert effective_rank(np.outer([1.0, -2.0, 3.0, 0.5], [0.6, 0.0, 0.8])) == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("shape", [(5, 9), (9, 5), (40, 6)])
    def test_agrees_with_the_singular_values(self, shape):
        vectors = np.random.default_rng(0).normal(size=shape)
        singular = np.linalg.svd(vectors, compute_uv=False)
        entropy = -sum(s / singular.sum() * math.log(s / singular.sum()) for s in singular)
        assert effective_rank(vectors) == pytest.approx(math.exp(entropy), rel=1e-9)
        rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(shape[1],) * 2))[0]
        assert effective_rank(1e-3 * vectors[::-1] @ rotation) == pytest.approx(math.exp(entropy), rel=1e-9)

    @pytest.mark.parametrize("vectors", [np.zeros((3, 2)), np.array([[1.0, np.nan]]), np.array([[np.inf, 1.0]])])
    def test_undefined(self, vectors):
        assert math.isnan(effective_rank(vectors))


class TestMeanCosine:
    def test_closed_forms(self):
        assert mean_cosine(np.full((5, 3), 0.2)) == pytest.approx(1)
        assert mean_cosine(7 * np.eye(4)) == pytest.approx(0)
        assert mean_cosine(np.array([[1.0, 2.0], [-2.0, -4.0]])) == pytest.approx(-1)
        assert mean_cosine(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])) == pytest.approx(1 / 3)

    def test_agrees_with_a_loop(self):
        x = np.random.default_rng(0).normal(size=(7, 3)) + 1
        cosines = [
            x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i in range(7) for j in range(7) if i != j
        ]
        assert mean_cosine(x) == pytest.approx(np.mean(cosines))

    def test_undefined(self):
        assert math.isnan(mean_cosine(np.ones((1, 3))))
        assert math.isnan(mean_cosine(np.array([[1.0, np.nan], [1.0, 0.0]])))


class TestBorderPeaks:
    def test_each_side_and_the_inside(self):
        assert border_peaks(peaks_at((0, 2), (3, 1), (1, 0), (2, 3))) == 1
        assert border_peaks(peaks_at((1, 1), (2, 2), (1, 2))) == 0
        assert border_peaks(peaks_at((1, 1), (0, 0), (2, 1), (3, 3), (2, 2))) == pytest.approx(2 / 5)

    def test_oblong_maps(self):
        maps = np.zeros((2, 3, 5))
        maps[0, 1, 3] = maps[1, 1, 4] = 2
        assert border_peaks(maps) == 1 / 2

    def test_a_peak_that_cells_share_counts_in_parts(self):
        assert border_peaks(peaks_at((0, 0)) + peaks_at((1, 1)) - 5) == 1 / 2
        assert border_peaks(np.zeros((3, 8, 8))) == pytest.approx(28 / 64)  # a constant map: the chance level

    def test_a_map_of_one_cell_is_all_border(self):
        assert border_peaks(np.ones((2, 1, 1))) == 1

    def test_undefined(self):
        maps = peaks_at((1, 1))
        maps[0, 0, 0] = np.nan
        assert math.isnan(border_peaks(maps))


class TestAudioGap:
    def test_a_fraction_of_the_range(self):
        own, other = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
        own[:, 1, 1], other[:, 2, 0] = (1.0, 3.0), (0.5, 2.5)
        # Peaks rise by 0.5 in maps whose range is 2 on average; where the peak is does not matter.
        assert audio_gap(own, other) == pytest.approx(0.25)
        assert audio_gap(other, own) == pytest.approx(-0.5 / 1.5)

    @pytest.mark.parametrize(("scale", "shift"), [(100, 0), (1e-3, 5)])
    def test_the_scale_of_a_method_does_not_matter(self, scale, shift):
        own, other = np.random.default_rng(0).normal(size=(2, 6, 4, 4))
        assert audio_gap(scale * own + shift, scale * other + shift) == pytest.approx(audio_gap(own, other))

    def test_audio_that_makes_no_difference(self):
        own = np.random.default_rng(0).normal(size=(6, 4, 4))
        assert audio_gap(own, own) == 0

    def test_constant_maps_have_no_range(self):
        assert math.isnan(audio_gap(np.ones((4, 3, 3)), np.ones((4, 3, 3))))


class TestDiagnose:
    def test_agrees_with_loops_over_all_clips(self):
        world, model = make_world(20, size=32)[0], make_model()
        found = diagnose(model, world, batch_size=8, device=CPU)
        frames, log_mel = (torch.from_numpy(values) for values in world.read(range(20)))
        own, other, audio, cells = [], [], [], []
        with torch.no_grad():
            for i in range(20):
                (v,) = model.encoders.encode_frames(frames[i : i + 1].permute(0, 3, 1, 2)).numpy()
                a, b = model.encoders.encode_audio(log_mel[[i, (i + 10) % 20]]).numpy()
                own.append(np.einsum("dhw,d->hw", v, a))
                other.append(np.einsum("dhw,d->hw", v, b))
                audio.append(a)
                cells += list(v.reshape(len(v), -1).T)
        on_border = [{0, 3} & set(divmod(int(each.argmax()), 4)) != set() for each in own]
        assert found["border_peaks"] == np.mean(on_border)
        assert found["border_cells"] == 12 / 16
        assert found["audio_cosine"] == pytest.approx((np.square(np.sum(audio, axis=0)).sum() - 20) / 380, abs=1e-5)
        rise = np.mean([each.max() - swapped.max() for each, swapped in zip(own, other, strict=True)])
        assert found["audio_gap"] == pytest.approx(rise / np.mean([np.ptp(each) for each in own]), abs=1e-5)
        for name, vectors in (("audio_rank", audio), ("visual_rank", cells)):
            singular = np.linalg.svd(np.array(vectors, dtype=float), compute_uv=False)
            share = singular / singular.sum()
            assert found[name] == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-4)

    @pytest.mark.parametrize("name", METHODS)
    def test_every_method(self, name):
        found = diagnose(make_model(name), make_world(24, size=32)[0], batch_size=8, device=CPU)
        assert tuple(found) == COLUMNS
        assert all(map(math.isfinite, found.values())), found

    def test_nothing_changes_but_the_mode(self):
        world, model = make_world(12, size=32)[0], make_model()
        before = {name: value.clone() for name, value in model.encoders.state_dict().items()}
        modules, state = list(model.encoders.named_modules()), torch.get_rng_state()
        first = diagnose(model, world, batch_size=8, device=CPU)
        assert diagnose(model, world, batch_size=8, device=CPU) == first
        assert torch.equal(torch.get_rng_state(), state)
        assert [(name, id(module)) for name, module in model.encoders.named_modules()] == [
            (name, id(module)) for name, module in modules
        ]
        after = model.encoders.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(value, before[name]) for name, value in after.items())

    def test_a_sample_spread_over_the_set_is_read(self):
        world, model = make_world(8, size=32)[0], make_model()
        many = Repeated(world, 1000)
        diagnose(model, many, batch_size=50, device=CPU)
        chosen = evenly_spaced(1000, SAMPLE)
        assert sorted(many.rows) == sorted(2 * chosen)
        # Frame i is paired with the audio half of the sample away.
        assert many.rows[:50] == chosen[:50]
        assert many.rows[50:100] == chosen[SAMPLE // 2 :][:50]

    def test_one_clip(self):
        found = diagnose(make_model(), make_world(1, size=32)[0], batch_size=8, device=CPU)
        assert {name for name, value in found.items() if math.isnan(value)} == {
            "audio_cosine", "audio_gap", "audio_rank",
        }  # fmt: skip
        assert not collapse({**row(), **found, "border_peaks": 0.0})

    def test_one_cell(self):
        found = diagnose(make_model(), make_world(6, size=8)[0], batch_size=8, device=CPU)
        assert (found["border_peaks"], found["border_cells"]) == (1, 1)
        assert math.isnan(found["audio_gap"])
        assert not collapse({**row(), **found, "audio_cosine": 0.3})

    def test_weights_that_are_not_finite_measure_nothing(self):
        model = make_model()
        with torch.no_grad():
            model.encoders.audio_projection.weight.fill_(torch.nan)
        found = diagnose(model, make_world(6, size=32)[0], batch_size=8, device=CPU)
        assert math.isnan(found["border_peaks"])
        assert math.isnan(found["audio_rank"])
        assert not collapse({**row(), **found})


class Repeated(MemoryShards):
    """`n` clips that repeat those of a world; remembers which were read."""

    def __init__(self, world, n):
        super().__init__(world.frames, world.log_mel)
        self.n, self.rows = n, []

    def __len__(self):
        return self.n

    def read(self, indices):
        self.rows += list(indices)
        return super().read([i % len(self.frames) for i in indices])


class TestCollapse:
    @pytest.mark.parametrize(
        ("values", "named"),
        [
            ({"border_peaks": 0.999, "border_cells": 0.4375}, ["99.9% of the response peaks", "43.8%"]),
            ({"audio_cosine": 0.946, "audio_gap": 0.003}, ["cosine of the audio embeddings", "0.95", "0.3%"]),
            ({"border_peaks": 1.0, "audio_cosine": 0.91, "audio_gap": -0.01}, ["100.0%", "0.91", "-1.0%"]),
            ({"audio_rank": 1.04, "audio_gap": 0.0}, ["rank of the audio embeddings is 1.0"]),
            ({"visual_rank": 1.2, "audio_gap": 0.0}, ["rank of the visual features is 1.2"]),
            ({"audio_cosine": 1.0, "audio_gap": math.nan}, ["1.00", "audio gap is undefined"]),
            ({"loss_share": 0.9984}, ["the loss is 99.8%", "uninformed", "`temperature`", "`margin`"]),
        ],
    )
    def test_names_what_was_measured_and_where_to_read_on(self, values, named):
        found = collapse(row(**values))
        assert all(part in found for part in (*named, "docs/troubleshooting.md"))
        assert "\n" not in found

    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"steps": 49, "audio_gap": 0.0, "audio_cosine": 0.99, "audio_rank": 1.0},  # BatchNorm does not follow yet
            {"steps": 49, "loss_share": 1.2},  # starts there
            {"loss_share": 0.991},  # temperature 0.3, first epoch of a run that learns
            {"border_peaks": 0.6},  # a set whose objects are often near the border
            {"border_peaks": 0.97, "border_cells": 0.75},  # maps of 4 x 4 cells: nearly all are on the border
            {"border_peaks": 1.0, "border_cells": 1.0},
            {"audio_gap": -0.01, "audio_rank": 2.0, "audio_cosine": 0.87},  # has not learned anything yet
            {"audio_gap": 0.2, "audio_rank": 1.0, "visual_rank": 1.0},  # two kinds, at two opposite points
            {"audio_gap": 0.2, "audio_cosine": 0.95},  # non-negative features that tell sounds apart
            dict.fromkeys((*COLUMNS, "loss_share"), math.nan),
        ],
    )
    def test_no_collapse(self, values):
        assert collapse(row(**values)) == ""

    @pytest.mark.parametrize(
        ("steps", "border", "cells", "cosine", "gap", "fires"),
        [
            (30, 1.000, 0.4375, 0.944, 0.003, True),  # the paper's preset without normalization, zero padding
            (93, 0.999, 0.4375, 0.910, math.nan, True),  # the same on 3,000 clips; its gap was not measured
            (10, 0.516, 0.4375, 0.961, 0.013, False),  # the preset as it is, on 320 mosaics of photographs
            (20, 0.359, 0.4375, 0.948, 0.008, False),
            (30, 0.406, 0.4375, 0.871, 0.041, False),
            (40, 0.406, 0.4375, 0.601, 0.132, False),
            (46, 0.188, 0.2344, 0.037, 0.009, False),  # the demo, first epochs of the initialization
            (92, 0.102, 0.2344, 0.107, 0.037, False),
            (138, 0.078, 0.2344, 0.140, 0.049, False),
            (184, 0.016, 0.2344, 0.019, 0.153, False),  # the demo, `iterative`
        ],
    )
    def test_measured_runs(self, steps, border, cells, cosine, gap, fires):
        values = {"border_peaks": border, "border_cells": cells, "audio_cosine": cosine, "audio_gap": gap}
        assert bool(collapse(row(steps=steps, **values))) is fires

    def test_an_untrained_model_is_not_judged(self):
        assert collapse(row(epoch=0, border_peaks=1.0, audio_cosine=0.99)) == ""


def collapsed(self, model, frames, log_mel):
    """Respond in the corner of every frame, whatever the audio, and embed every audio alike."""
    response = torch.zeros(len(frames), 4, 4)
    response[:, 0, 0] = 1
    return response, torch.eye(16)[:1].expand(len(frames), -1)


@pytest.fixture(scope="module")
def world():
    return make_world(24, size=32)[0]


def warnings_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]


def run_all(folder, world, *, settings=None):
    settings = settings or make_settings()
    initialize(world, folder / "initialize", settings=settings, seeds=[0], device="cpu")
    train(world, folder / "initialize", folder / "itr", method="itr", settings=settings, seeds=[0], device="cpu")


class TestRuns:
    def test_a_collapsed_run_warns_once_and_names_the_measures(self, world, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(Contrastive, "localize", collapsed)
        settings = make_settings(initialize=OptimizationSettings(**PHASE, epochs=4))
        initialize(world, tmp_path / "run", settings=settings, seeds=[0], device="cpu")
        (line,) = warnings_of(capsys)
        assert line.startswith("warning: initialize, seed 0, epoch 1: ")
        assert "100.0% of the response peaks" in line

    @pytest.mark.parametrize(("epochs", "warned"), [("-c", [1]), ("-cc", [1]), ("--c-c", [2]), ("---", []), ("c", [])])
    def test_the_first_epoch_that_shows_it_warns(self, capsys, epochs, warned):
        rows = [row(epoch=i, border_peaks=1.0 if each == "c" else 0.3) for i, each in enumerate(epochs)]
        for i in range(len(rows)):
            report_epoch("run", [dict.fromkeys(LOGGED, math.nan) | each for each in rows[: i + 1]], epochs=3)
        assert [int(line.split("epoch ")[1].split(":")[0]) for line in warnings_of(capsys)] == warned

    def test_a_healthy_run_does_not_warn(self, world, tmp_path, capsys):
        run_all(tmp_path, world)
        assert warnings_of(capsys) == []

    def test_the_history_has_the_start_and_every_epoch(self, world, tmp_path):
        run_all(tmp_path, world)
        for name in ("initialize", "itr"):
            with open(tmp_path / name / "history.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            assert [each["epoch"] for each in rows] == ["0", "1", "2"]
            assert [each["steps"] for each in rows] == ["0", "3", "6"]
            assert list(rows[0]) == list(HISTORY)
            assert HISTORY[-len(COLUMNS) :] == COLUMNS
            assert all(each[column] for each in rows for column in COLUMNS)
            assert {column for column, value in rows[0].items() if not value} == set(HISTORY) - {
                "epoch",
                "steps",
                *COLUMNS,
            }
        # The second run starts with the model that the first one ended with.
        last, first = (
            read_history(tmp_path / "initialize/history.csv")[-1],
            read_history(tmp_path / "itr/history.csv")[0],
        )
        assert {column: last[column] for column in COLUMNS} == {column: first[column] for column in COLUMNS}

    def test_the_loss_is_compared_with_knowing_nothing(self, world, tmp_path):
        run_all(tmp_path, world)
        for row in read_history(tmp_path / "initialize/history.csv")[1:]:
            assert row["loss_share"] == pytest.approx(row["loss"] / math.log(8), rel=1e-5)  # batches of 8

    def test_the_history_is_that_of_the_stored_model(self, world, tmp_path):
        run_all(tmp_path, world)
        found = diagnose(load_model(tmp_path / "itr/model.pt"), world, batch_size=8, device=CPU)
        last = read_history(tmp_path / "itr/history.csv")[-1]
        assert [last[column] for column in COLUMNS] == [float(f"{found[column]:.6g}") for column in COLUMNS]

    def test_an_interrupted_run_ends_with_the_same_history(self, world, tmp_path, monkeypatch, capsys):
        run_all(tmp_path / "smooth", world)
        run_all(tmp_path / "killed", world)
        (tmp_path / "killed/itr/model.pt").unlink()
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.training.loop.start_epoch", lambda _run, _state, epoch: 1 / (epoch - 2))
            with pytest.raises(ZeroDivisionError):
                run_all(tmp_path / "killed", world)
        assert len(read_history(tmp_path / "killed/itr/history.csv")) == 2
        capsys.readouterr()
        run_all(tmp_path / "killed", world)
        assert "resuming after epoch 1" in capsys.readouterr().err
        for name in ("history.csv", "model.pt", "pseudo_labels/epoch_002.h5"):
            assert (tmp_path / "killed/itr" / name).read_bytes() == (tmp_path / "smooth/itr" / name).read_bytes()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text.replace("audio_gap", "gap"),
            lambda text: text.replace("\n1,", "\nx,"),
            lambda text: "\n".join(line for line in text.split("\n") if not line.startswith("1,")),
            lambda text: text.split("\n")[0] + "\n",
            lambda text: text[: len(text) // 2],
        ],
    )
    def test_a_damaged_history_is_named(self, world, tmp_path, damage):
        initialize(world, tmp_path / "run", settings=make_settings(), seeds=[0], device="cpu")
        path = tmp_path / "run/history.csv"
        path.write_text(damage(path.read_text()))
        with pytest.raises(TrainingError, match=r"run/history\.csv: damaged"):
            read_history(path)
