import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.common.config import AudioSettings, load_card
from pipeline.common.errors import ManifestError, SettingsError
from pipeline.datasets.importers.params_block import fitted, params_with_block, params_with_values
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import CardText, Dataset, card_text, write_dataset
from pipeline.datasets.replace import replace_folder
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import Clip, read_clips
from tests.support.importing import PARAMS, make_project, options, tree

CARD = CardText(title="A set", source="here", license="none", image_size=64, protocol="paper256")


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


def dataset(media, **changes):
    clips = {"train": [Clip("a", video="a.mp4")], "test": [Clip("b", video="b.mp4")]}
    boxes = {"test": [Box("b", "x", "1", True, 0, 0, 0.5, 0.5)]}
    return Dataset(
        **{
            "name": "own",
            "card": CARD,
            "media": media,
            "report": ImportReport("own"),
            "clips": clips,
            "boxes": boxes,
            **changes,
        }
    )


def test_a_dataset_is_written_completely(project):
    write_dataset(dataset(project / "clips"), project)
    folder = project / "data_manifests/own"
    assert sorted(tree(folder)) == ["dataset.yaml", "import_report.json", "test.csv", "test_boxes.csv", "train.csv"]
    assert load_card(folder).media_root == "clips"
    assert [f.name for f in (project / "data_manifests").iterdir()] == ["own"]


def test_an_absolute_path_is_printed_but_not_stored(project, tmp_path):
    written = dataset(tmp_path / "else where")
    write_dataset(written, project)
    assert load_card(project / "data_manifests/own").media_root == "data/own/media"
    assert any(
        hint.endswith(f"export SOUNDSPOT_MEDIA_ROOT_OWN='{tmp_path}/else where'") for hint in written.report.hints
    )
    assert not any(str(tmp_path).encode() in content for content in tree(project).values())


def test_files_that_no_import_wrote_are_the_users(project):
    write_dataset(dataset(project / "clips"), project)
    folder = project / "data_manifests/own"
    for name in ("README.md", "validation.csv", ".DS_Store"):
        (folder / name).write_text("mine")
    again = dataset(project / "clips")
    write_dataset(again, project)
    assert again.report.unchanged

    boxes = [Box("b", "x", "1", True, 0, 0, 0.25, 0.5)]
    write_dataset(dataset(project / "clips", boxes={"test": boxes}), project, force=True)
    assert (folder / "README.md").read_text() == (folder / "validation.csv").read_text() == "mine"
    # A list of an earlier import that the new one does not have goes.
    write_dataset(
        dataset(project / "clips", clips={"train": [Clip("a", video="a.mp4")]}, boxes={}), project, force=True
    )
    assert not (folder / "test.csv").exists()
    assert (folder / "README.md").exists()


def test_an_existing_dataset_is_kept_unless_forced(project):
    write_dataset(dataset(project), project)
    before = tree(project)
    other = dataset(project, clips={"train": [Clip("c", video="c.mp4")]}, boxes={})
    with pytest.raises(ManifestError, match=r"own: exists.* change test.csv, test_boxes.csv, train.csv; .*--force"):
        write_dataset(other, project)
    assert tree(project) == before
    write_dataset(other, project, force=True)
    assert sorted(tree(project / "data_manifests/own")) == ["dataset.yaml", "import_report.json", "train.csv"]


def test_a_second_import_that_changes_nothing_is_not_refused(project):
    write_dataset(dataset(project), project)
    card = project / "data_manifests/own/dataset.yaml"
    card.write_text(f"# Ours.\n{card.read_text()}")
    before = tree(project)
    again = dataset(project)
    again.report.leave_out("train", "broken", "damaged")
    write_dataset(again, project)
    assert again.report.unchanged
    assert tree(project) == before
    with pytest.raises(ManifestError, match=r"change dataset\.yaml;"):
        write_dataset(dataset(project, card=replace(CARD, threshold=0.25)), project)
    assert tree(project) == before


def test_the_block_of_settings_is_a_copy_of_the_preset_of_the_card(project):
    shutil.copy(Path(__file__).parents[2] / "params.yaml", project)
    write_dataset(dataset(project, card=replace(CARD, preset="music_synthetic")), project)
    write_dataset(dataset(project, name="other"), project)
    blocks = yaml.safe_load((project / "params.yaml").read_text())["training"]
    assert blocks["own"] == blocks["music_synthetic"]
    assert blocks["other"] == blocks["soundnet_flickr"] != blocks["own"]


BAD = [
    ({"clips": {}, "boxes": {}}, "no usable clip"),
    ({"clips": {"train": [Clip("a", video="a.mp4")] * 2}, "boxes": {}}, "'a' is already at"),
    ({"clips": {"train": [Clip("a", video="../a.mp4")]}, "boxes": {}}, "leaves the media root"),
    ({"clips": {"train": [Clip("a b", video="a.mp4")]}, "boxes": {}}, "clip_id 'a b'"),
    (
        {"clips": {s: [Clip(s, video="a.mp4")] for s in ("train", "test")}, "boxes": {}},
        "share 1 .*file 'a.mp4'.*clip 'test'",
    ),
    (
        {"clips": {s: [Clip(s, video="a.mp4")] for s in ("train", "validation")}, "boxes": {}},
        "share 1 .*file 'a.mp4'.*clip 'validation'",
    ),
    ({"boxes": {"test": [Box("z", "x", "1", True, 0, 0, 1, 1)]}}, "boxes for .* test: z"),
    ({"boxes": {"test": [Box("b", "x", "1", True, 0.5, 0.5, 0.2, 0.2)]}}, "looks like xywh"),
    ({"name": "a/b"}, "dataset name 'a/b'"),
    ({"card": CardText("t", "s", "l", image_size=0, protocol="paper256")}, "image_size"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
@pytest.mark.parametrize("force", [False, True])
def test_a_bad_dataset_changes_nothing(project, changes, message, force):
    if force:
        write_dataset(dataset(project), project)
    before = tree(project)
    with pytest.raises((ManifestError, SettingsError), match=message):
        write_dataset(dataset(project, **changes), project, force=force)
    assert tree(project) == before


def test_allowed_leaks_are_recorded_on_the_card(project):
    clips = {s: [Clip("a", video="a.mp4")] for s in ("train", "test")}
    write_dataset(dataset(project, clips=clips, boxes={}, leaks_allowed=True), project)
    assert load_card(project / "data_manifests/own").leaks_allowed


def test_a_killed_replacement_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "old").write_text("old")

    def stopped_halfway(building):
        (building / "new").write_text("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_folder(folder, stopped_halfway, force=True)
    assert tree(tmp_path) == {"own/old": b"old"}


@pytest.mark.parametrize("text", ['quote " here', "colon: hash # {x}", "- dash", "lines\nbreak", "Ünï", "null"])
def test_any_text_on_the_card_comes_back(tmp_path, text):
    audio = AudioSettings(sample_rate=8000, clip_seconds=0.5, n_fft=64, hop_length=32, n_mels=8, log_floor=2.5e-7)
    card = CardText(title=text, source=text, license=text, image_size=32, protocol="paper256", audio=audio)
    (tmp_path / "dataset.yaml").write_text(card_text(card, "data/x"), encoding="utf-8")
    back = load_card(tmp_path)
    assert (back.title, back.source, back.license) == (text, text, text)
    assert back.audio == audio


def test_the_block_is_added_and_no_other_byte_changes(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    text, hint = params_with_block(path, "own")
    added = "  own:\n    batch_size: 96\n    iterate: {epochs: 20}\n"
    assert text == PARAMS.replace("  other: {batch_size: 2}\n", f"  other: {{batch_size: 2}}\n{added}")
    assert "dataset: own" in hint


def test_line_ends_stay_and_an_anchor_is_not_referred_to(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.replace("  soundnet_flickr:", "  soundnet_flickr: &paper").replace("\n", "\r\n").encode())
    text, _ = params_with_block(path, "own")
    assert "  own:\r\n    batch_size: 96\r\n" in text
    assert "*paper" not in text
    assert yaml.safe_load(text)["training"]["own"] == {"batch_size": 96, "iterate": {"epochs": 20}}


@pytest.mark.parametrize("preset", ["plain", "merged"])
def test_anchors_inside_the_block_are_not_defined_twice(tmp_path, preset):
    path = tmp_path / "params.yaml"
    path.write_text(
        "training:\n  plain: &all\n    one: &one {a: 1}\n".replace(" &all", "" if preset == "plain" else " &all")
        + "    two: *one   # R&D, &c.\n    three: {b: &b 2, c: *b}\n"
        + ("  merged:\n    <<: *all\n    four: &four {<<: *one, b: 3}\n    five: *four\n" if preset == "merged" else "")
    )
    text, _ = params_with_block(path, "own", preset=preset)
    blocks = yaml.safe_load(text)["training"]
    assert text.startswith(path.read_text())
    assert not set("&*") & set(
        text[len(path.read_text()) :]
    )  # a change of the preset would be one of the copy, and back
    assert blocks["own"] == blocks[preset] == yaml.safe_load(path.read_text())["training"][preset]


def test_the_projects_own_blocks_can_be_copied():
    path = Path(__file__).parents[2] / "params.yaml"
    for preset, block in yaml.safe_load(path.read_text())["training"].items():
        text, _ = params_with_block(path, "own", preset=preset)
        assert yaml.safe_load(text)["training"]["own"] == block


BLOCK = {"a": 1, "b": {"c": [1, 2]}}
NOTATIONS = {
    "four spaces": "training:\n    soundnet_flickr: {a: 1, b: {c: [1, 2]}}\nafter: 1\n",
    "comments": "training:  # all\n  soundnet_flickr:  # paper\n    a: 1   # one\n    b: {c: [1, 2]}   # two\n\n# next\nafter: 1\n",
    "an indented comment at the end": "training:\n  soundnet_flickr: {a: 1, b: {c: [1, 2]}}\n  # what follows\n\nafter: 1\n",
    "quoted keys": "'training':\n  \"soundnet_flickr\": {a: 1, b: {c: [1, 2]}}\nafter: 1\n",
    "an anchor at training": "training: &all\n  soundnet_flickr: {a: 1, b: {c: [1, 2]}}\nafter: 1\n",
    "an alias at the end": "training:\n  soundnet_flickr: &p {a: 1, b: {c: [1, 2]}}\n  same: *p   # as above\nafter: 1\n",
    "several lines of flow": "training:\n  soundnet_flickr: {a: 1,\n    b: {c: [1,\n      2]}}\nafter: 1\n",
    "a list at the end": "training:\n  soundnet_flickr:\n    a: 1\n    b:\n      c:\n      - 1\n      - 2\nafter: 1\n",
    "text of several lines": "training:\n  soundnet_flickr: {a: 1, b: {c: [1, 2]}}\n  x: |\n    one\n    two\nafter: 1\n",
    "an empty value": "training:\n  soundnet_flickr: {a: 1, b: {c: [1, 2]}}\n  x:   # none\nafter: 1\n",
    "braces": "training: {soundnet_flickr: {a: 1, b: {c: [1, 2]}} }   # all\nafter: 1\n",
    "no line end": "training:\n  soundnet_flickr: {a: 1, b: {c: [1, 2]}}",
    "a comment and no line end": "training:\n  soundnet_flickr: {a: 1, b: {c: [1, 2]}}  # paper",
    "a document start": "---\ntraining:\n  soundnet_flickr: {a: 1, b: {c: [1, 2]}}\n...\n",
}


@pytest.mark.parametrize("text", NOTATIONS.values(), ids=NOTATIONS)
@pytest.mark.parametrize("eol", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_in_any_notation_only_the_block_is_inserted(tmp_path, text, eol):
    path = tmp_path / "params.yaml"
    path.write_bytes(text.replace("\n", eol).encode())
    before = path.read_bytes().decode()
    after, _ = params_with_block(path, "own")
    assert yaml.safe_load(after)["training"].pop("own") == BLOCK
    # The old text is unchanged before and after the inserted block.
    same = next(i for i, (old, new) in enumerate(zip(before + "\0", after, strict=False)) if old != new)
    rest = before[same:]
    assert after.endswith(rest)
    inserted = after[same : len(after) - len(rest)]
    assert len(before) + len(inserted) == len(after)
    assert eol == "\n" or "\n" not in inserted.replace("\r\n", "")


def test_comments_of_what_follows_stay_with_it(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("training:\n  soundnet_flickr: {a: 1}   # paper\n\n# next\nafter: 1\n")
    text = "training:\n  soundnet_flickr: {a: 1}   # paper\n  own: {a: 1}\n\n# next\nafter: 1\n"
    assert params_with_block(path, "own")[0] == text


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (PARAMS, "training.other"),
        ("training: {demo: {a: 1}}\n", "copy a block of `training` to training.other"),
        ("x: &x {soundnet_flickr: {a: 1}}\ntraining: *x\n", "copy a block of `training` to training.other"),
        ("training:\n  demo: {a: 1}\n", "copy a block of `training` to training.other"),
        ("dataset: demo\n", "copy a block of `training` to training.other"),
    ],
)
def test_a_file_that_needs_or_allows_no_block_stays(tmp_path, content, hint):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    text, said = params_with_block(path, "other")
    assert text == ""
    assert hint in said


def test_missing_and_broken_settings(tmp_path):
    assert "run from the project's root" in params_with_block(tmp_path / "params.yaml", "own")[1]
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(SettingsError, match="not readable as YAML"):
        params_with_block(tmp_path / "params.yaml", "own")


def test_the_preset_is_the_block_that_is_copied(project):
    chosen = options(project, "own", project, preset="other")
    report = chosen.start()
    write_dataset(Dataset.of(chosen, CARD, report, {"train": [Clip("a", video="a.mp4")]}, {}), project)
    assert yaml.safe_load((project / "params.yaml").read_text())["training"]["own"] == {"batch_size": 2}
    assert report.hints[0].startswith("params.yaml: added training.own with the settings of other")


def test_an_unknown_preset_is_an_error_that_lists_the_blocks(project):
    with pytest.raises(SettingsError, match=r"--preset tiny: .* demo, other, soundnet_flickr$"):
        options(project, "own", project, preset="tiny").start()
    (project / "params.yaml").unlink()
    with pytest.raises(SettingsError, match=r"--preset demo: .*none"):
        options(project, "own", project, preset="demo").start()


def test_an_import_adds_the_block(project):
    write_dataset(dataset(project), project)
    assert yaml.safe_load((project / "params.yaml").read_text())["training"]["own"]["batch_size"] == 96
    assert [clip.clip_id for clip in read_clips(project / "data_manifests/own/train.csv")] == ["a"]


FROZEN = {"backbone": "timm:x", "trainable": "none"}


def block(encoder):
    return {"batch_size": 64, "encoder": encoder, "initialize": {"epochs": 4}, "iterate": {"epochs": 8}}


@pytest.mark.parametrize(
    ("n_train", "batch_size", "times"),
    [
        (1, 2, 5),
        (3, 2, 5),
        (4, 2, 5),
        (19, 8, 5),
        (32, 16, 5),
        (127, 32, 5),
        (128, 64, 5),
        (500, 64, 5),
        (1000, 64, 3),
        (3000, 64, 1),
    ],
)
def test_settings_fit_the_number_of_clips(n_train, batch_size, times):
    frozen = block({"visual": FROZEN, "audio": FROZEN, "embedding_dim": 128})
    new = fitted(frozen, n_train)
    assert (new["batch_size"], new["initialize"]["epochs"], new["iterate"]["epochs"]) == (
        batch_size,
        4 * times,
        8 * times,
    )
    assert new["encoder"] == frozen["encoder"]
    assert frozen["batch_size"] == 64
    # A step of a trained backbone is slow, so more epochs are not worth it.
    trained = block({"visual": FROZEN, "audio": {"blocks": [1]}})
    assert fitted(trained, n_train) == trained | {"batch_size": batch_size}
    assert fitted({"batch_size": 2}, n_train) == {"batch_size": 2}


VALUES = """\
dataset: demo          # the active one
variants: [initial, iterative]   # to train
seeds:
- 0
# After.
training:
  demo:
    batch_size: 64   # ours
    iterate: {epochs: 4, rate: 1.0e-3}   # all ours
    same: &same {a: 1}
    other: *same
    empty:
"""


def replaced(*changes):
    text = VALUES
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("eol", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize(
    ("keys", "value", "change"),
    [
        (("dataset",), "street", ("dataset: demo ", "dataset: street ")),
        (("variants",), ["a", "b"], ("[initial, iterative]", "[a, b]")),
        (("training", "demo", "batch_size"), 8, ("size: 64", "size: 8")),
        (("training", "demo", "iterate", "epochs"), 20, ("epochs: 4", "epochs: 20")),
        (("training", "demo", "iterate", "epochs"), 4, ("epochs: 4", "epochs: 4")),
    ],
)
def test_one_value_is_replaced_and_no_other_byte_changes(keys, value, change, eol):
    text = params_with_values(VALUES.replace("\n", eol), {keys: value}, where="params.yaml")
    assert text == replaced(change).replace("\n", eol)


def test_several_values_are_replaced():
    keys = ("training", "demo", "iterate")
    text = params_with_values(VALUES, {("dataset",): "x", (*keys, "rate"): 0.5}, where="params.yaml")
    assert text == replaced(("dataset: demo", "dataset: x"), ("1.0e-3", "0.5"))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("nothing",), 1),
        (("dataset", "name"), 1),
        (("training", "street", "batch_size"), 1),
        (("training", "demo", "other", "a"), 2),
        (("training", "demo", "same", "a"), 2),
        (("training", "demo", "empty"), 2),
    ],
)
def test_a_value_that_is_missing_or_shared_is_refused(keys, value):
    with pytest.raises(SettingsError, match=rf"^params\.yaml: .*{'.'.join(keys)}"):
        params_with_values(VALUES, {keys: value}, where="params.yaml")
