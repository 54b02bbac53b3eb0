"""Looking at pseudo-labels: lists, comparisons, neighbors, histograms, exports, verification."""

from __future__ import annotations

import json
import math

import h5py
import numpy as np
import pytest
from PIL import Image

from pipeline.apps.inspection import measures as inspection_measures
from pipeline.apps.inspection.export import clips_of, export_coco, export_npz, export_png, regions_of, run_lengths
from pipeline.apps.inspection.figures import Frames, comparison_page, overlay_labels, pixels_of
from pipeline.apps.inspection.measures import (
    compare,
    pair_cosines,
    response_histogram,
    shared_mask_ious,
    similarity_histogram,
)
from pipeline.apps.inspection.text import bars, epochs_text, map_text
from pipeline.apps.inspection.verify import verify_artifacts
from pipeline.apps.inspection.views import centering, clip_neighbors, find_artifacts, find_clip, list_epochs, view_clip
from pipeline.cli.targets import open_shards, resolve_labels
from pipeline.common.errors import PseudoLabelError, ShardError, TrainingError
from pipeline.common.files import file_digest
from pipeline.common.project import labels_path, weights_path
from pipeline.common.record import write_record
from pipeline.pseudo_labels.artifact import ClipLabels, PseudoLabels, write_pseudo_labels
from pipeline.shards.reader import ShardSet
from pipeline.training.checkpoints import RERUN, read_checkpoint, write_checkpoint
from pipeline.training.diagnostics import collapse
from pipeline.training.history import start_row, write_history
from tests.cli.test_evaluate import PARAMS
from tests.shards.test_shards import SIZE, clip_values
from tests.support.labeled_runs import CLIPS, make_labels, make_run, make_train_shards
from tests.support.mutations import edited


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs" / "squares" / "good")


def naive_cosines(embedding, *, center):
    """All pairs of different clips, in loops."""
    mean = sum(embedding) / len(embedding) if center else 0
    found = []
    for i in range(len(embedding)):
        for j in range(i + 1, len(embedding)):
            a, b = embedding[i] - mean, embedding[j] - mean
            found.append(float(a @ b) / np.sqrt(float(a @ a) * float(b @ b)))
    return found


def write_diagnostics(run, **columns):
    """Write a ``history.csv`` of healthy epochs, with the given columns, and return its rows."""
    healthy = {"border_cells": 0.4, "audio_cosine": 0.3, "audio_gap": 0.1, "audio_rank": 12.0, "visual_rank": 30.0}
    values = [dict(zip(columns, of_epoch, strict=True)) for of_epoch in zip(*columns.values(), strict=True)]
    rows = [start_row({**healthy, **each, "epoch": epoch}) for epoch, each in enumerate(values)]
    write_history(run / "history.csv", run / "timings.csv", rows)
    return rows


class TestFinding:
    def test_a_runs_folder_its_labels_and_a_file_lead_to_the_same(self, run):
        whole = find_artifacts(run)
        assert list(whole.paths) == [0, 1, 2]
        assert find_artifacts(run / "pseudo_labels") == whole
        one = find_artifacts(labels_path(run, 1))
        assert (one.run, list(one.paths)) == (run, [1])
        assert [whole.epoch(word) for word in ("first", "last", "1", 2)] == [0, 2, 1, 2]

    def test_what_a_method_made_before_an_epoch_is_no_artifact(self, run):
        (run / "pseudo_labels" / "start_001.h5").write_bytes(b"")
        (run / "pseudo_labels" / ".epoch_003.h5.0123abcd.tmp").write_bytes(b"")
        assert list(find_artifacts(run).paths) == [0, 1, 2]

    def test_epochs_beyond_999_are_in_order(self, run):
        for epoch in (1000, 999):
            write_pseudo_labels(labels_path(run, epoch), make_labels(1).with_attributes(epoch=epoch))
        assert list(find_artifacts(run).paths) == [0, 1, 2, 999, 1000]

    def test_an_epoch_that_is_not_there(self, run):
        with pytest.raises(PseudoLabelError, match=r"no pseudo-labels of epoch '7'; there are 0 to 2, first, last"):
            find_artifacts(run).epoch(7)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(PseudoLabelError, match="no such file or folder"):
            find_artifacts(tmp_path / "none")
        with pytest.raises(PseudoLabelError, match="no pseudo-labels in it"):
            find_artifacts(tmp_path)

    @pytest.mark.parametrize(("text", "found"), [("clip-03", "clip-03"), ("clip-1", None), ("clip-11", "clip-11")])
    def test_a_clip_by_id_or_start(self, text, found):
        labels = make_labels(0)
        if found:
            assert find_clip(labels, text) == found
        else:
            with pytest.raises(PseudoLabelError, match=r"'clip-1' .* 2 clip ids: clip-10, clip-11"):
                find_clip(labels, text)

    def test_an_unambiguous_start(self):
        labels = make_labels(0, clips=["dog-1", "dog-12", "cat-3"])
        assert find_clip(labels, "c") == "cat-3"
        assert find_clip(labels, "dog-1") == "dog-1"

    @pytest.mark.parametrize(("text", "near"), [("clip_07", "clip-07"), ("-07", "clip-07"), ("", "clip-00")])
    def test_an_unknown_clip_names_the_nearest(self, text, near):
        with pytest.raises(PseudoLabelError, match=rf"no clip '{text}' .*12 clips; similar: .*{near}"):
            find_clip(make_labels(0), text)

    def test_centering_is_what_the_model_says(self, run, tmp_path):
        assert centering(run) is True
        assert centering(make_run(tmp_path / "other", center_audio=False)) is False
        (run / "model.pt").write_bytes(b"no model")
        assert centering(run) is None
        assert centering(tmp_path) is None


class TestTargets:
    @pytest.fixture
    def project(self, run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "params.yaml").write_text(PARAMS)
        return tmp_path

    def resolve(self, project, word, **options):
        return resolve_labels(
            word, **{"dataset": None, "seed": None, "params_path": project / "params.yaml", **options}
        )

    def test_a_variant_is_a_run_of_the_active_dataset(self, project):
        assert str(self.resolve(project, "good").run) == "runs/squares/good"
        with pytest.raises(PseudoLabelError, match=r"runs/squares/goood: .*available: good"):
            self.resolve(project, "goood")
        with pytest.raises(PseudoLabelError, match=r"runs/none/good: .*train first"):
            self.resolve(project, "good", dataset="none")

    def test_further_seeds(self, project):
        make_run(project / "runs/squares/good/seed_7")
        assert self.resolve(project, "good", seed=0).run.name == "good"
        assert self.resolve(project, "good", seed=7).run.name == "seed_7"
        assert self.resolve(project, "runs/squares/good", seed=7).run.name == "seed_7"
        with pytest.raises(PseudoLabelError, match=r"no folder seed_3, .* 0, 7"):
            self.resolve(project, "good", seed=3)
        with pytest.raises(PseudoLabelError, match="good/seed_3: no such folder"):
            self.resolve(project, "runs/squares/good", seed=3)

    def test_a_seed_that_the_settings_no_longer_have(self, project):
        make_run(project / "runs/squares/good/seed_3")
        assert self.resolve(project, "good", seed=3).run.name == "seed_3"

    def test_paths_need_no_settings(self, project, run, monkeypatch):
        (project / "params.yaml").unlink()
        assert self.resolve(project, str(run)).run == run
        monkeypatch.chdir(run.parent)
        assert str(self.resolve(project, "good").run) == "good"
        monkeypatch.chdir(run / "pseudo_labels")
        assert list(self.resolve(project, "epoch_001.h5").paths) == [1]

    def test_shards_lie_beside_the_runs(self, run, tmp_path):
        assert open_shards(run, None) is None
        make_train_shards(tmp_path / "data/squares/shards/train")
        for each in (run, run / "seed_7", run / "pseudo_labels"):
            assert open_shards(each, None).clip_ids == CLIPS
        assert open_shards(tmp_path, None) is None
        with pytest.raises(ShardError, match="no shards"):
            open_shards(run, tmp_path)


class TestList:
    def test_numbers_agree_with_loops(self, run):
        summaries = list(list_epochs(find_artifacts(run), center=True))
        assert [each.epoch for each in summaries] == [0, 1, 2]
        assert [each.sounding_fraction for each in summaries] == pytest.approx([1 / 16, 2 / 16, 3 / 16])
        assert summaries[0].change is None
        assert [each.change for each in summaries[1:]] == pytest.approx([1 - 1 / 2, 1 - 2 / 3])
        cosines = naive_cosines(PseudoLabels.open(labels_path(run, 0)).audio_embedding.astype(float), center=True)
        related = 2 * sum(cosine >= 0.9 for cosine in cosines) / 12
        assert 0 < related < 11
        assert [each.positives_per_clip for each in summaries] == pytest.approx([related] * 3)
        assert all(each.positives_exact for each in summaries)
        assert summaries[1].bytes == labels_path(run, 1).stat().st_size

    def test_diagnostics_are_those_of_the_history(self, run):
        rows = write_diagnostics(run, border_peaks=[0.2, 0.3, 1.0], audio_gap=[math.nan, 0.1, 0.2])
        summaries = list(list_epochs(find_artifacts(run), center=True))
        assert [each.diagnostics["border_peaks"] for each in summaries] == [0.2, 0.3, 1.0]
        assert [each.diagnostics["audio_gap"] for each in summaries] == [None, 0.1, 0.2]
        assert [each.collapse for each in summaries] == ["", "", collapse(rows[2])]
        (one,) = list_epochs(find_artifacts(labels_path(run, 1)), center=True)
        assert one.diagnostics["border_peaks"] == 0.3
        text = epochs_text(summaries)
        header, _, first, _, last, warning = text.splitlines()
        assert [word in header for word in ("border/chance %", "cosine", "gap", "rank a", "rank V")] == [True] * 5
        assert first.split()[6:9] == ["20.0/40.0", "0.30", "–"]
        assert last.split()[6:9] == ["100.0/40.0", "0.30", "0.20"]
        assert warning == f"warning: epoch 2: {collapse(rows[2])}"

    def test_the_labels_of_the_initialization_have_the_diagnostics_of_its_last_epoch(self, tmp_path):
        write_pseudo_labels(labels_path(tmp_path, 0), make_labels(0))
        write_diagnostics(tmp_path, border_peaks=[0.2, 0.3, 0.4])
        (one,) = list_epochs(find_artifacts(tmp_path), center=True)
        assert one.diagnostics["border_peaks"] == 0.4

    def test_without_a_history(self, run):
        summaries = list(list_epochs(find_artifacts(run), center=True))
        assert {value for each in summaries for value in each.diagnostics.values()} == {None}
        assert "warning" not in epochs_text(summaries)
        epochs_text(summaries, plain=True).encode("ascii")

    def test_a_damaged_history_is_named(self, run):
        write_diagnostics(run, border_peaks=[0.2, 0.3, 0.4])
        (run / "history.csv").write_text("epoch\n0\n")
        with pytest.raises(TrainingError, match=r"history\.csv: damaged"):
            list(list_epochs(find_artifacts(run), center=True))

    def test_a_damaged_epoch_is_named(self, run):
        path = labels_path(run, 1)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(PseudoLabelError, match=r"epoch_001\.h5: damaged"):
            list(list_epochs(find_artifacts(run), center=True))

    def test_a_single_clip(self, tmp_path):
        write_pseudo_labels(labels_path(tmp_path, 0), make_labels(0, clips=["a"]))
        (one,) = list_epochs(find_artifacts(tmp_path), center=True)
        assert one.positives_per_clip == 0


class TestPairs:
    @pytest.mark.parametrize("center", [True, False])
    @pytest.mark.parametrize("rows", [1, 5, 512])
    def test_each_pair_once(self, monkeypatch, center, rows):
        monkeypatch.setattr(inspection_measures, "_ROWS", rows)
        labels = make_labels(0)
        found = np.concatenate(list(pair_cosines(labels, center=center)))
        expected = naive_cosines(labels.audio_embedding.astype(float), center=center)
        np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-5)

    def test_a_sample_is_centered_with_all_and_always_the_same(self):
        labels = make_labels(0)
        found = [np.concatenate(list(pair_cosines(labels, center=True, sample=5))) for _ in range(2)]
        assert len(found[0]) == 10
        np.testing.assert_array_equal(*found)
        every = naive_cosines(labels.audio_embedding.astype(float), center=True)
        assert all(np.abs(np.array(every) - cosine).min() < 1e-5 for cosine in found[0])

    def test_a_sample_tells_the_share_of_all(self):
        n = 400
        labels = make_labels(0, clips=[f"{i:03d}" for i in range(n)])
        shares = [
            np.mean(np.concatenate(list(pair_cosines(labels, center=False, sample=sample))) >= 0.9)
            for sample in (n, 150)
        ]
        assert 0.05 < shares[0] < 0.95
        assert shares[1] == pytest.approx(shares[0], abs=0.05)


class TestCompare:
    def test_closed_form(self):
        before, after = make_labels(0), make_labels(2)
        comparison = compare(before, after, top=3)
        assert comparison.mean_mask_iou == pytest.approx(1 / 3)
        assert comparison.quantiles["p50"] == pytest.approx(1 / 3)
        assert (comparison.clips, comparison.unchanged, comparison.counts[3]) == (12, 0, 12)
        assert len(comparison.most_changed) == 3
        assert comparison.most_changed[0].sounding_fraction_before == pytest.approx(1 / 16)
        assert comparison.most_changed[0].sounding_fraction_after == pytest.approx(3 / 16)
        same = compare(after, after, top=99)
        assert (same.mean_mask_iou, same.unchanged, same.counts[9], len(same.most_changed)) == (1, 1, 12, 12)

    def test_most_changed_comes_first_and_the_larger_of_equals(self):
        response = np.zeros((3, 2, 2), dtype=np.float32)
        response[0, 0, 0] = response[1, 0, :] = response[2, 1, :] = 1
        moved = response.copy()
        moved[1:] = response[1:, ::-1]
        moved[0, 0, 1] = 1
        moved[2, 0, 0], moved[2, 0, 1] = 1, 0
        attrs = make_labels(0).attrs
        before, after = (
            PseudoLabels.from_responses(["a", "b", "c"], r, np.eye(3, dtype=np.float32), **attrs)
            for r in (response, moved)
        )
        assert [(each.clip_id, each.mask_iou) for each in compare(before, after, top=3).most_changed] == [
            ("b", 0.0), ("c", 0.0), ("a", 0.5)
        ]  # fmt: skip

    def test_clips_of_one_epoch_alone_are_counted_and_left_out(self):
        comparison = compare(make_labels(0, clips=[*CLIPS, "x"]), make_labels(0, clips=[*CLIPS[:5], "y", "z"]), top=1)
        assert (comparison.clips, comparison.clips_only_before, comparison.clips_only_after) == (5, 8, 2)

    def test_order_of_the_clips_plays_no_part(self):
        one = make_labels(1)
        assert shared_mask_ious(one.select(CLIPS[::-1]), one)[1].tolist() == [1.0] * 12

    def test_what_cannot_be_compared(self):
        with pytest.raises(PseudoLabelError, match="no clip in common"):
            compare(make_labels(0), make_labels(0, clips=["x"]), top=1)
        small = PseudoLabels.from_responses(
            CLIPS, np.ones((12, 2, 2), np.float32), np.ones((12, 2), np.float32), **make_labels(0).attrs
        )
        with pytest.raises(PseudoLabelError, match=r"maps of \(2, 2\) cells"):
            compare(make_labels(0), small, top=1)


class TestClips:
    @pytest.mark.parametrize("center", [True, False])
    def test_neighbors_and_relation_against_loops(self, center):
        labels = make_labels(0)
        found = clip_neighbors(labels, "clip-04", k=3, center=center)
        embedding = labels.audio_embedding.astype(float)
        embedding = embedding - (embedding.mean(axis=0) if center else 0)
        unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        cosine = {clip: float(unit[i] @ unit[4]) for i, clip in enumerate(CLIPS) if i != 4}
        nearest = sorted(cosine, key=lambda clip: -cosine[clip])[:3]
        assert [each.clip_id for each in found.neighbors] == nearest
        assert [each.similarity for each in found.neighbors] == pytest.approx(
            [cosine[clip] for clip in nearest], abs=1e-5
        )
        assert [each.related for each in found.neighbors] == [cosine[clip] >= 0.9 for clip in nearest]
        assert found.n_related == sum(value >= 0.9 for value in cosine.values())

    def test_a_view_in_numbers(self):
        labels = make_labels(1)
        view = view_clip(labels, "clip-06", k=2, center=True)
        raw = make_labels(1)["clip-06"]
        assert view.peak == (2, 0)
        assert view.peak_xy == (0.125, 0.625)
        assert (view.response_max, view.response_min) == (raw.response_max, raw.response_min)
        assert view.response_max == 1
        assert view.sounding_fraction == 2 / 16
        np.testing.assert_allclose(view.response, raw.response, atol=1e-4)

    def test_the_only_clip_has_no_neighbor(self):
        assert clip_neighbors(make_labels(0, clips=["a"]), "a", k=3, center=True).neighbors == []


class TestHistograms:
    def test_every_cell_and_pair_is_counted_once(self):
        labels = make_labels(1)
        responses = response_histogram(labels, bins=10)
        expected = [0] * 10
        for value in labels.response.ravel():
            expected[min(int(value * 10), 9)] += 1
        assert responses.counts == expected
        assert (responses.above, responses.mark) == (2 / 16, 0.5)
        sounds = similarity_histogram(labels, center=False, bins=4)
        cosines = naive_cosines(labels.audio_embedding.astype(float), center=False)
        assert sum(sounds.counts) == len(cosines) == 66
        assert sounds.above == pytest.approx(np.mean(np.array(cosines) >= 0.9))
        assert sounds.counts[:2] == [0, 0]

    def test_bars(self):
        text = bars(np.linspace(0, 1, 5), [0, 1, 40, 20], mark=0.5, mark_name="δ_v")
        lines = text.splitlines()
        assert [line.count("█") for line in lines] == [0, 1, 40, 20]
        assert ["δ_v" in line for line in lines] == [False, False, True, False]
        assert bars(np.linspace(0, 1, 3), [0, 0], plain=True).isascii()
        # 17 × 0.05 is a little more than 0.85.
        (line,) = (
            line for line in bars(np.linspace(0, 1, 21), [1] * 20, mark=0.85, mark_name="m").splitlines() if "m" in line
        )
        assert line.split()[:3] == ["0.85", "to", "0.90"]


class TestMapText:
    def test_solid_above_the_threshold_and_a_marked_peak(self):
        response = np.array([[1.0, 0.6, 0.5], [0.0, 0.2, 0.49]])
        lines = map_text(response, delta_v=0.5, plain=True).splitlines()
        assert lines[1:-1] == ["|@@##++|", "|  ..++|"]
        assert "◆◆██▒▒" in map_text(response, delta_v=0.5)

    def test_a_flat_map_has_no_peak(self):
        assert "@" not in map_text(np.zeros((2, 2)), delta_v=0.0, plain=True)


def decoded(segmentation):
    """COCO's run lengths as a mask, one pixel after the other."""
    height, width = segmentation["size"]
    flat, value = [], 0
    for length in segmentation["counts"]:
        flat += [value] * length
        value = 1 - value
    mask = np.zeros((height, width), dtype=bool)
    for place, bit in enumerate(flat):
        mask[place % height, place // height] = bit
    return mask


class TestExport:
    def test_npz_holds_all_fields_as_the_file_does(self, tmp_path):
        labels = make_labels(1)
        export_npz(tmp_path / "a.npz", labels)
        with np.load(tmp_path / "a.npz", allow_pickle=False) as read:
            assert read["clip_id"].tolist() == CLIPS
            assert read["response"].dtype == np.float16
            for name in ("response", "response_min", "response_max", "audio_embedding", "sounding_fraction"):
                np.testing.assert_array_equal(read[name].astype(np.float32), getattr(labels, name))
            assert json.loads(str(read["attributes"])) == labels.attrs

    def test_coco_regions_are_the_masks(self, tmp_path):
        labels = make_labels(2)
        assert export_coco(tmp_path / "c.json", labels, side=10) == 12
        content = json.loads((tmp_path / "c.json").read_text())
        assert [image["clip_id"] for image in content["images"]] == CLIPS
        assert {image["width"] for image in content["images"]} == {10}
        for i, annotation in enumerate(content["annotations"]):
            mask = decoded(annotation["segmentation"])
            np.testing.assert_array_equal(mask, pixels_of(labels.masks[i], 10, 10))
            rows, cols = np.nonzero(mask)
            assert annotation["bbox"] == [cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1]
            assert annotation["area"] == mask.sum()
            assert annotation["image_id"] == content["images"][i]["id"]
            assert annotation["score"] == pytest.approx(labels.response[i][labels.masks[i]].mean(), abs=1e-4)

    def test_parts_that_touch_at_a_corner_only_are_two(self):
        response = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0.9]], dtype=np.float32)
        clip = ClipLabels("a", response, 0.0, 1.0, np.ones(2), 4 / 9, 0.5)
        one, two = regions_of(clip, side=3)
        assert (one["area"], one["bbox"]) == (1, [0, 0, 1, 1])
        assert (two["area"], two["bbox"]) == (3, [1, 1, 2, 2])
        assert regions_of(ClipLabels("a", 0 * response, 0.0, 0.0, np.ones(2), 0.0, 0.5), side=3) == []

    @pytest.mark.parametrize(
        ("mask", "counts"), [("0000", [4]), ("1111", [0, 4]), ("0110", [1, 2, 1]), ("1001", [0, 1, 2, 1])]
    )
    def test_run_lengths(self, mask, counts):
        assert run_lengths(np.array([int(c) for c in mask], dtype=bool).reshape(2, 2, order="F")) == counts

    def test_pictures(self, tmp_path):
        shards = ShardSet.open(make_train_shards(tmp_path / "shards"))
        labels = make_labels(1).select(CLIPS[:3])
        written = list(export_png(tmp_path / "out", labels, Frames(shards)))
        assert [path.name for path in written] == [f"{clip}.png" for clip in CLIPS[:3]]
        with Image.open(written[0]) as picture:
            assert picture.size == (SIZE, SIZE)
        foreign = PseudoLabels.from_responses(
            ["../a"], np.ones((1, 2, 2), np.float32), np.ones((1, 2), np.float32), **labels.attrs
        )
        with pytest.raises(PseudoLabelError, match=r"'\.\./a' is not a valid file name"):
            list(export_png(tmp_path / "out", foreign, Frames(None)))

    def test_clips_one_by_one_are_those_looked_up(self):
        labels = make_labels(1)
        for clip in clips_of(labels):
            np.testing.assert_array_equal(clip.response, labels[clip.clip_id].response)
            assert clip.sounding_fraction == labels[clip.clip_id].sounding_fraction


class TestPictures:
    def test_frames_come_from_the_shards_or_are_gray(self, tmp_path):
        frames = Frames(ShardSet.open(make_train_shards(tmp_path / "shards")))
        np.testing.assert_array_equal(frames.of("clip-05"), clip_values("clip-05")[0])
        assert frames.side == SIZE
        assert np.unique(frames.of("elsewhere")).size == 1
        assert Frames(None).of("clip-05").shape == (128, 128, 3)

    def test_an_overlay_is_bright_where_it_sounds(self):
        frame = np.zeros((64, 64, 3), dtype=np.uint8)
        picture = np.asarray(overlay_labels(frame, make_labels(0)["clip-01"])).astype(int).sum(axis=2)
        assert picture[16:32, :16].mean() > 4 * picture[40:, 32:].mean()

    def test_a_page_is_escaped_and_complete(self):
        one, other = (make_labels(epoch, clips=["<b>&", "b"], objective="<script>") for epoch in (0, 2))
        page = comparison_page(compare(one, other, top=2), one, other, Frames(None))
        assert "<b>" not in page
        assert "<script" not in page
        assert "&lt;b&gt;&amp;: mask IoU 0.33" in page
        # Two clips with three images each, and the color bar.
        assert page.count("data:image/png;base64,") == page.count("<img") == 7
        assert "http" not in page

    def test_a_page_names_what_is_compared(self, tmp_path):
        def title(one, other):
            page = comparison_page(compare(one, other, top=1), one, other, Frames(None))
            return page.split("<h1>")[1].split("</h1>")[0]

        runs = [
            PseudoLabels.open(make_run(tmp_path / name, objective=name) / "pseudo_labels/epoch_002.h5")
            for name in ("initial", "iterative")
        ]
        assert title(*runs) == "initial, epoch 2 and iterative, epoch 2"
        seeds = [
            PseudoLabels.open(make_run(tmp_path / f"seed_{seed}") / "pseudo_labels/epoch_002.h5") for seed in (1, 2)
        ]
        assert "seed_1/pseudo_labels/epoch_002.h5 and " in title(*seeds)


class TestVerify:
    @pytest.fixture
    def shards(self, tmp_path):
        return ShardSet.open(make_train_shards(tmp_path / "shards"))

    @pytest.fixture
    def run(self, tmp_path, shards):
        return make_run(tmp_path / "run", shards=shards.fingerprint)

    def test_a_good_run(self, run, shards):
        found = verify_artifacts(find_artifacts(run), shards=shards)
        assert (found.n_problems, found.notes) == (0, [])
        assert [each.epoch for each in found.artifacts] == [0, 1, 2]

    def test_damage_is_found_in_its_file_alone(self, run, shards):
        path = labels_path(run, 1)
        with h5py.File(path) as file:
            place = file["audio_embedding"].id.get_chunk_info(0).byte_offset
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        found = verify_artifacts(find_artifacts(run), shards=shards)
        assert [len(each.problems) for each in found.artifacts] == [0, 1, 0]
        assert "checksum" in found.artifacts[1].problems[0]

    def test_files_of_a_finished_run_are_those_that_it_recorded(self, run, shards):
        (run / "history.csv").write_text("epoch,loss\n1,0.5\n")
        files = [run / "history.csv", run / "model.pt", labels_path(run, 1)]
        write_record(run, code="", files={str(path.relative_to(run)): file_digest(path) for path in files})
        assert verify_artifacts(find_artifacts(run), shards=shards).n_problems == 0
        (run / "history.csv").write_text("epoch,loss\n1,0.4\n")
        write_checkpoint(run / "model.pt", read_checkpoint(run / "model.pt") | {"seed": 9})
        with edited(labels_path(run, 1)) as file:
            file["audio_embedding"][3, 0] = 0.125
        found = verify_artifacts(find_artifacts(run), shards=shards)
        assert [problem.split(": ")[0] for problem in found.problems] == [str(path) for path in files]

    def test_artifacts_of_another_run_epoch_or_set_of_clips(self, run, shards):
        write_pseudo_labels(labels_path(run, 1), make_labels(1, fingerprint="b" * 32, shards=shards.fingerprint))
        write_pseudo_labels(labels_path(run, 2), make_labels(1, clips=[*CLIPS[1:], "x", "y"], shards="d" * 32))
        found = verify_artifacts(find_artifacts(run), shards=shards)
        problems = [each.problems for each in found.artifacts]
        assert problems[0] == []
        assert [problem.split(":")[0] for problem in problems[1]] == ["belongs to another run than model.pt"]
        assert problems[2] == [
            "its attribute epoch is 1",
            f"computed from other shards: fingerprint {'d' * 32}, not {shards.fingerprint}",
            "1 clips of the shards have no pseudo-labels, such as 'clip-00'",
            "2 clips are not in the shards, such as 'x'",
        ]

    def test_a_broken_model(self, run, shards):
        labels_path(run, 1).unlink()  # without the model, nobody knows which epochs are labeled
        (run / "model.pt").write_bytes(b"no model")
        found = verify_artifacts(find_artifacts(run), shards=shards)
        assert len(found.problems) == found.n_problems == 1
        assert "model.pt" in found.problems[0]

    @pytest.mark.parametrize("epoch", [0, 1, 2])
    def test_no_artifact_may_be_missing(self, run, shards, epoch):
        labels_path(run, epoch).unlink()
        found = verify_artifacts(find_artifacts(run), shards=shards)
        assert found.problems == [f"{labels_path(run, epoch)}: missing; {run}/model.pt is of epoch 2"]
        assert found.n_problems == 1
        # Of one file, nothing is said of the others.
        assert verify_artifacts(find_artifacts(labels_path(run, (epoch + 1) % 3)), shards=shards).n_problems == 0

    def test_an_epoch_that_the_model_does_not_know(self, run, shards):
        write_pseudo_labels(labels_path(run, 3), make_labels(3, shards=shards.fingerprint))
        (problem,) = verify_artifacts(find_artifacts(run), shards=shards).problems
        assert problem.startswith(f"{labels_path(run, 3)}: epoch 3 is beyond the last epoch (2) of {run}/model.pt")

    def test_kept_weights_are_there_readable_and_of_the_run(self, run, shards):
        assert sorted(path.name for path in (run / "weights").iterdir()) == ["epoch_000.pt", "epoch_001.pt"]
        first, second = (weights_path(run, epoch) for epoch in (0, 1))
        content = second.read_bytes()
        first.unlink()
        second.write_bytes(content[:-50])
        problems = verify_artifacts(find_artifacts(run), shards=shards).problems
        assert [problem.split(": ")[0] for problem in problems] == [str(first), str(second)]
        assert "no such file" in problems[0]
        for path in (first, second):
            path.write_bytes(content)
        assert verify_artifacts(find_artifacts(run), shards=shards).problems == [
            f"{first}: belongs to another run or epoch; {RERUN}"
        ]

    def test_an_initialization_labels_once_and_keeps_nothing(self, run, shards):
        for epoch in (1, 2):
            labels_path(run, epoch).unlink()
        content = read_checkpoint(run / "model.pt")
        write_checkpoint(run / "model.pt", content | {"stage": "initialize", "epoch": 20})
        assert verify_artifacts(find_artifacts(run), shards=shards).n_problems == 0

    @pytest.mark.parametrize("name", ["stage", "epoch", "iteration"])
    def test_a_model_that_does_not_describe_its_run(self, run, shards, name):
        content = read_checkpoint(run / "model.pt")
        del content[name]
        write_checkpoint(run / "model.pt", content)
        (problem,) = verify_artifacts(find_artifacts(run), shards=shards).problems
        assert problem.startswith(f"{run}/model.pt: incomplete description of its run (KeyError: '{name}')")

    def test_what_could_not_be_compared_is_said(self, run):
        (run / "model.pt").unlink()
        found = verify_artifacts(find_artifacts(run), shards=None)
        assert found.n_problems == 0
        assert len(found.notes) == 2
