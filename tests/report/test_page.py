"""The report page without a browser: its data, escaping, and notes on missing media."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import asdict
from html.parser import HTMLParser
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.common.errors import EvaluationError
from pipeline.common.remote.path import local_or_remote
from pipeline.evaluation.epoch_maps import checkpoint_maps
from pipeline.figures.heatmap import heatmap_rgba
from pipeline.manifests.clips import Clip
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.report.page.markdown import section_html
from pipeline.report.page.media import MP3_RATES, clip_audio, encode_mp3, frame_image, log_mel_image
from pipeline.report.page.page import headline, json_for_script
from pipeline.report.page.scored_maps import localize_epochs, score_epochs
from pipeline.report.source import read_scored
from pipeline.scoring.map_file import read_maps
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.upsampling import upsampling_matrix
from pipeline.shards.reader import ShardSet
from pipeline.training.checkpoints import load_model, read_checkpoint, write_checkpoint
from tests.support.media_files import write_media
from tests.support.page_world import (
    CIOU,
    HOSTILE,
    TEST,
    TRAIN,
    make_page,
    make_source,
    relation_chart,
    success_chart,
    training_chart,
)
from tests.support.scored_world import boxes_of, mask


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])


class Elements(HTMLParser):
    """Every element with its attributes, in order."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def decoded(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype=dtype)


def opened(uri):
    return io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))


def test_page_loads_nothing_and_has_no_handlers(page):
    elements = Elements(page.read_text()).found
    assert [tag for tag, _ in elements].count("script") == 2
    for tag, attributes in elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("src", "srcset", "data", "poster"):
            assert attributes.get(name, "data:").startswith("data:")
        if tag == "a":
            assert re.match(r"#|\w+\.(md|csv|npz|png)$", attributes["href"])
    policy = next(a["content"] for _, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_files_of_every_section_are_linked_under_the_part_that_shows_it(page):
    linked, section = {}, ""
    for tag, attributes in Elements(page.read_text()).found:
        if tag == "section":
            section = attributes["id"]
        elif tag == "a" and not attributes["href"].startswith("#"):
            linked.setdefault(section, []).append(attributes["href"])
    assert linked == {
        "curves": ["figure3.png"],
        # One gallery replaces Figures 4 and 5.
        "scored": ["figure4.png", "figure4.csv", "figure5.png", "figure5.csv", "figure5.npz"],
        "training": ["figure6.png", "figure6.npz"],
        "part8": ["figure7.png"],
        "keys": ["index.md"],
    }


def test_hostile_text_is_never_markup(page):
    text = page.read_text()
    assert "<script>window" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;window.pwned" in text
    assert "\\u003cscript\\u003ewindow.pwned" in text


def test_the_first_thing_is_a_strip_of_six_clips_from_best_to_worst(page):
    text = page.read_text()
    ranking = sorted(TEST, key=lambda clip_id: -CIOU["iterative"][clip_id])
    links = [attributes for tag, attributes in Elements(text).found if tag == "a" and "data-place" in attributes]
    assert [link["href"] for link in links] == [f"#clip={ranking[i]}" for i in (0, 2, 4, 7, 9, 11)]
    assert text.index('class="six"') < text.index("<section")


def test_folded_parts_and_the_footer_are_in_the_page(page):
    text = page.read_text()
    folded = text[text.index('<details class="folded">') : text.index("</details>")]
    assert "<summary>More</summary>" in folded
    assert "63.5 <small>(60.5–66.7)</small>" in folded
    assert "<dt>Code</dt><dd>soundspot 1 &lt;script&gt;" in text[text.index("<footer>") :]
    assert text.split("<title>")[1].split("</title>")[0].endswith(" · soundspot report")


def test_the_colors_are_those_of_all_heat_maps(data):
    palette = decoded(data["palette"], np.uint8).reshape(256, 4)
    np.testing.assert_array_equal(palette, heatmap_rgba())


def test_same_results_give_the_same_bytes(page, tmp_path):
    assert make_page(tmp_path).read_bytes() == page.read_bytes()


def test_scored_clips_are_in_ranking_order_with_their_maps(page, data):
    gallery = data["galleries"]["scored"]
    ciou = CIOU["iterative"]
    assert [clip["id"] for clip in gallery["clips"]] == sorted(TEST, key=lambda clip_id: -ciou[clip_id])
    assert [method["label"] for method in gallery["methods"]] == ["iterative (Eq. 7)", "initial (Eq. 3)"]
    assert (gallery["shown"], gallery["total"], gallery["threshold"]) == (0, 12, 0.5)
    maps = read_maps(page.parent.parent / "results" / "maps" / "iterative" / "maps.h5")
    weights = decoded(gallery["matrices"]["4"], "<f4").reshape(256, 4)
    expected = upsampling_matrix(4, 256, interpolation="bilinear", align_corners=False)
    np.testing.assert_array_equal(weights, expected)
    for clip in gallery["clips"]:
        raw = maps.response[TEST.index(clip["id"])].astype(np.float64)
        cells = (raw - raw.min()) / (raw.max() - raw.min())
        np.testing.assert_array_equal(decoded(clip["maps"][0][-1], np.uint8), np.rint(255 * cells).ravel())
        assert clip["levels"] == [[0.5] * 3] * 2
        assert clip["scores"][0][-1] == pytest.approx(ciou[clip["id"]], abs=1e-4)
        assert [box[4] for box in clip["boxes"]] == [1, 0]


def test_maps_of_earlier_epochs_are_those_of_the_kept_weights(page, data):
    gallery, folder = data["galleries"]["scored"], page.parent.parent
    assert [method["epochs"] for method in gallery["methods"]] == [[0, 1, 2]] * 2
    weights = decoded(gallery["matrices"]["4"], "<f4").reshape(256, 4).astype(np.float64)
    for m, name in enumerate(("iterative", "initial")):
        for epoch in (0, 1):
            model = load_model(folder / "runs" / name / "weights" / f"epoch_{epoch:03d}.pt")
            raw = model.response_maps(ShardSet.open(folder / "test"), batch_size=5, device="cpu")
            for clip in gallery["clips"]:
                own = raw[TEST.index(clip["id"])].astype(np.float64)
                cells = 255 * (own - own.min()) / (own.max() - own.min())
                np.testing.assert_allclose(decoded(clip["maps"][m][epoch], np.uint8).reshape(4, 4), cells, atol=0.6)
                region = weights @ (cells / 255) @ weights.T > 0.5
                truth = mask(boxes_of(clip["id"])[0], 256)
                ciou = (region & truth).sum() / (truth.sum() + (region & ~truth).sum())
                assert clip["scores"][m][epoch] == pytest.approx(ciou, abs=2e-3)


def test_a_run_without_kept_weights_is_named(tmp_path):
    make_page(tmp_path)
    shutil.rmtree(tmp_path / "runs" / "initial" / "weights")
    with pytest.raises(EvaluationError, match=r"runs/initial/weights: .*`dvc repro"):
        checkpoint_maps(tmp_path / "runs" / "initial", ShardSet.open(tmp_path / "test"), TEST, device="cpu")


def test_the_initialization_alone_is_shown_with_one_epoch(tmp_path):
    source = make_source(tmp_path)
    run = source.runs / "initial"
    shutil.rmtree(run / "weights")
    write_checkpoint(run / "model.pt", {**read_checkpoint(run / "model.pt"), "epoch": 0})
    method = read_scored(source, "initial")
    maps = localize_epochs(source, method, TEST)
    assert maps.epochs == [0]
    np.testing.assert_array_equal(maps.response, [method.maps.response[[method.maps.clip_ids.index(c) for c in TEST]]])
    boxes = {clip_id: boxes_of(clip_id) for clip_id in TEST}
    assert score_epochs(maps, method, TEST, boxes, get_protocol("paper256")) == [method.ciou]


def test_change_is_the_mean_difference_of_the_enlarged_maps(data):
    gallery = data["galleries"]["scored"]
    weights = decoded(gallery["matrices"]["4"], "<f4").reshape(256, 4).astype(np.float64)
    for clip in gallery["clips"]:
        for m in (0, 1):
            first, _, last = (
                weights @ (decoded(text, np.uint8).reshape(4, 4) / 255.0) @ weights.T for text in clip["maps"][m]
            )
            assert clip["change"][m] == pytest.approx(np.abs(first - last).mean(), abs=3e-3)


def test_training_maps_are_those_of_the_artifacts(page, data):
    gallery = data["galleries"]["training"]
    assert [clip["id"] for clip in gallery["clips"]] == TRAIN
    assert [method["name"] for method in gallery["methods"]] == ["iterative", "initial"]
    assert [method["epochs"] for method in gallery["methods"]] == [[0, 1, 2]] * 2
    runs = page.parent.parent / "runs"
    for m, name in enumerate(("iterative", "initial")):
        artifacts = [PseudoLabels.open(runs / name / "pseudo_labels" / f"epoch_{e:03d}.h5") for e in range(3)]
        assert gallery["levels"][m] == [0.5] * 3
        for row, clip in enumerate(gallery["clips"]):
            for epoch, labels in enumerate(artifacts):
                own = decoded(clip["maps"][m][epoch], np.uint8).reshape(4, 4) / 255
                np.testing.assert_allclose(own, labels.response[row], atol=0.5 / 255 + 1e-6)
                region = labels.response[row] > 0.5
                share, iou = clip["facts"][m][epoch]
                assert share == pytest.approx(region.mean(), abs=1e-4)
                if epoch:
                    before = artifacts[epoch - 1].response[row] > 0.5
                    assert iou == pytest.approx((region & before).sum() / (region | before).sum(), abs=1e-4)
                else:
                    assert iou is None


def test_charts_are_those_of_the_sections(data):
    assert data["charts"] == {
        name: json.loads(json.dumps(asdict(chart)))
        for name, chart in (
            ("curves", success_chart()),
            ("relation", relation_chart()),
            ("training", training_chart()),
        )
    }
    assert data["charts"]["relation"]["panels"][1]["curves"][0]["values"] == [None, 0.6, 0.6]


def test_audio_is_embedded_if_the_media_exist_and_else_the_page_says_why(data):
    clips = {clip["id"]: clip for gallery in data["galleries"].values() for clip in gallery["clips"]}
    with_audio = [clip_id for clip_id, clip in sorted(clips.items()) if clip["audio"]]
    assert with_audio == ["test-00", "test-07", "train-00"]
    assert clips["test-07"]["note"] == ""
    assert "test-01.mp4 was missing" in clips["test-01"]["note"]


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100])
def test_mp3_keeps_the_tone(rate):
    wave = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    with av.open(io.BytesIO(encode_mp3(wave, sample_rate=rate))) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert container.streams.audio[0].rate == rate
        assert not container.metadata
    assert len(heard) == pytest.approx(rate, abs=0.06 * rate)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * rate / len(heard) == pytest.approx(440, abs=3)
    assert np.abs(heard).max() == pytest.approx(0.9, abs=0.06)


def test_long_audio_gets_a_lower_bit_rate():
    wave = np.random.default_rng(0).uniform(-1, 1, 20 * 16_000).astype(np.float32)
    assert len(encode_mp3(wave, sample_rate=16_000)) < 63_000


def test_missing_audio_gives_a_note(tmp_path, monkeypatch):
    (tmp_path / "broken.mp4").write_bytes(b"no media at all" * 20)
    write_media(tmp_path / "fine.mp4", sound=np.ones((1, 8000), dtype=np.float32) * 0.5, rate=8000)
    settings = {"clip_seconds": 0.5, "sample_rate": 7000}
    assert "clip list" in clip_audio(None, tmp_path, **settings)[1]
    assert "gone.mp4 was missing" in clip_audio(Clip("a", video="gone.mp4"), tmp_path, **settings)[1]
    assert "broken.mp4 could not be decoded" in clip_audio(Clip("a", video="broken.mp4"), tmp_path, **settings)[1]
    monkeypatch.setattr("pipeline.common.remote.request.PAUSES_S", ())
    unreachable = local_or_remote("http://127.0.0.1:9/media")
    assert "fine.mp4 could not be read" in clip_audio(Clip("a", video="fine.mp4"), unreachable, **settings)[1]
    audio, note = clip_audio(Clip("b", video="fine.mp4"), tmp_path, **settings)
    assert (audio[:23], note) == ("data:audio/mpeg;base64,", "")
    assert 8000 in MP3_RATES


def test_images_are_small_and_upright():
    frame = np.zeros((600, 600, 3), dtype=np.uint8)
    frame[:300] = (200, 40, 40)
    image = np.asarray(Image.open(opened(frame_image(frame))))
    assert image.shape == (256, 256, 3)
    np.testing.assert_allclose(image[20, 128], (200, 40, 40), atol=6)
    log_mel = np.full((64, 2000), -20, dtype=np.float32)
    log_mel[:8] = 0
    image = np.asarray(Image.open(opened(log_mel_image(log_mel)))).astype(int).sum(axis=2)
    assert image.shape == (64, 400)
    assert image[-4].mean() > 400 > 100 > image[4].mean()
    assert np.ptp(np.asarray(Image.open(opened(log_mel_image(np.zeros((8, 9), dtype=np.float32)))))) < 8


def test_text_keeps_tables_and_loses_markup():
    html = section_html(
        f"See *this*.\n\n| | a |\n| --- | ---: |\n| x<b> | 1.0 (0.9–1.1) |\n| y | – |\n\n{HOSTILE}", name="T & U"
    )
    assert '<th scope="row">x&lt;b&gt;</th>' in html
    assert "above δ<sub>v</sub> and" in section_html("above δ_v and", name="")
    assert '<td class="num">1.0 <small>(0.9–1.1)</small></td>' in html
    assert '<tr class="none">' in html
    assert 'aria-label="T &amp; U, table"' in html
    assert "<script" not in html
    assert "<img" not in html
    assert "style=" not in html
    assert "<img" not in section_html("![x](https://example.invalid/a.png)", name="")


def test_tables_have_different_names_and_no_empty_header():
    html = section_html("| | a |\n| --- | ---: |\n| x | 1 |\n\nwords\n\n| b | |\n| --- | --- |\n| y | 2 |\n", name="T")
    assert re.findall(r'aria-label="(.*?)"', html) == ["T, table", "T, table 2"]
    assert re.findall(r"<thead>\s*<tr>\s*(.*?)\s*</tr>", html, re.DOTALL) == [
        '<td></td>\n<th scope="col" class="num">a</th>',
        '<th scope="col">b</th>\n<td></td>',
    ]


def test_json_cannot_end_its_element():
    value = {"a": "</script><!--<script>&"}
    text = json_for_script(value)
    assert not set(text) & set("<>&")
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="Out of range"):
        json_for_script(float("nan"))


def test_headline_compares_the_method_with_shuffled_audio_and_a_baseline():
    def scores(rate, shuffled=None):
        own = {"success_rate": rate, "success_rate_low": rate - 0.1, "success_rate_high": rate + 0.1}
        return own | {f"shuffled_{key}": value for key, value in (scores(shuffled) if shuffled else {}).items()}

    source = SimpleNamespace(
        shown="iterative",
        content_free={"random": scores(0.1), "all_ones": scores(0.2)},
        metrics={"initial": scores(0.4, 0.3), "iterative": scores(0.6, 0.15)},
    )
    assert headline(source) == [
        ("iterative (Eq. 7)", "60.0%", "50.0–70.0", "Success rate"),
        ("initial (Eq. 3)", "40.0%", "30.0–50.0", "Success rate"),
        ("iterative (Eq. 7), shuffled audio", "15.0%", "5.0–25.0", "Success rate"),
        ("best content-free baseline: all ones", "20.0%", "10.0–30.0", "Success rate"),
    ]


def test_headline_of_mosaics_is_their_quadrant_accuracy():
    def scores(own, shuffled):
        values = {"quadrant_accuracy": own, "shuffled_quadrant_accuracy": shuffled, "success_rate": 1 - own}
        return {
            key + end: value + step
            for key, value in values.items()
            for end, step in (("", 0), ("_low", -0.1), ("_high", 0.1))
        }

    source = SimpleNamespace(
        shown="itr",
        content_free={"random": scores(0.26, 0), "all_ones": scores(0.25, 0)},
        metrics={"itr": scores(0.7, 0.3)},
    )
    assert headline(source) == [
        ("itr", "70.0%", "60.0–80.0", "Quadrant accuracy"),
        ("itr, shuffled audio", "30.0%", "20.0–40.0", "Quadrant accuracy"),
        ("best content-free baseline: random map", "26.0%", "16.0–36.0", "Quadrant accuracy"),
    ]
