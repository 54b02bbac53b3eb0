"""Each importer from the files of its dataset to a score: import, then every stage of dvc.yaml in its order.

The stages run in this process, on one Dask worker for all, since starting eight processes for each dataset would take
minutes. tests/project runs the same commands through DVC.
"""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.cli.main import soundspot
from pipeline.common.config import load_card
from pipeline.manifests.boxes import read_boxes
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.score import score
from pipeline.shards.reader import ShardSet
from tests.support import importer_trees
from tests.support.importer_trees import Tree
from tests.support.media_files import number_of
from tests.support.projects import ROOT, read_params, shrunk, write_params

pytestmark = pytest.mark.slow
IN_PROCESS = [make for make in importer_trees.TREES if make is not importer_trees.music_synthetic_build]
METRICS = ("success_rate", "auc", "mean_ciou", "mean_iou", "pointing_accuracy")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOUNDSPOT_MEDIA_ROOT", raising=False)
    return tmp_path


def import_tree(tree: Tree, project: Path) -> None:
    """Run the command, and make the block of settings that it leaves small enough."""
    soundspot.main(["import", *tree.command, *map(str, tree.arguments)], standalone_mode=False)
    params = read_params(project)
    own, paper = ({**params["training"][name], "methods": {}} for name in (tree.name, "soundnet_flickr"))
    if tree.command[0] == "folder":  # fits the number of clips
        assert own["batch_size"] == 4
        own["batch_size"] = paper["batch_size"]
    assert own == paper, "the paper's settings; DMC counts the sources of each dataset"
    # On a CPU torch 2.13 has crashed in the backward pass of frames this large with widths of 4 and 8.
    params["training"] = {tree.name: shrunk(params["training"][tree.name], batch_size=2, width=16)}
    write_params(project, params | {"dataset": tree.name, "variants": ["iterative"]})


def stage_commands(params: Mapping[str, Any]) -> Iterator[list[str]]:
    """The commands of dvc.yaml in its order, with the values that DVC would put in."""

    def filled(text: str, item: Mapping[str, str]) -> str:
        return re.sub(r"\$\{(?:item\.)?(\w+)}", lambda match: str({**params, **item}[match[1]]), text)

    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        # An axis is a list, or names one of params.yaml, such as `${variants}`.
        axes = {
            name: params[values[2:-1]] if isinstance(values, str) else values
            for name, values in stage["matrix"].items()
        }
        for combination in itertools.product(*axes.values()):
            item = {name: filled(value, {}) for name, value in zip(axes, combination, strict=True)}
            yield shlex.split(filled(stage["cmd"], item))


def run_stages(project: Path) -> None:
    for python, flag, module, *arguments in stage_commands(read_params(project)):
        assert (python, flag) == ("python", "-m")
        importlib.import_module(module).main.main(arguments, standalone_mode=False)


def check_scores(tree: Tree, project: Path) -> None:
    """The scores are those of the dataset's own protocol, on every test clip."""
    check_metrics(tree, project / "results" / tree.name)
    coverage = json.loads((project / "data" / tree.name / "coverage.json").read_text())
    assert coverage["train"] == {"listed": tree.train, "found": tree.train}
    assert len(ShardSet.open(project / "data" / tree.name / "shards/train")) == tree.train
    assert "iterative" in (project / "results" / tree.name / "report/table.md").read_text()


def check_metrics(tree: Tree, results: Path) -> None:
    metrics = json.loads((results / "iterative/scores.json").read_text())
    assert (metrics["protocol"], metrics["threshold"]) == (tree.protocol, tree.threshold)
    assert metrics["n_clips"] == len(tree.boxes())
    for key in METRICS:
        assert 0 <= metrics[f"{key}_low"] <= metrics[key] <= metrics[f"{key}_high"] <= 1, key


def check_boxes(tree: Tree, project: Path) -> None:
    """The regions that the dataset's files mean are perfect under the card's rule."""
    manifest = project / "data_manifests" / tree.name
    boxes, evaluation = read_boxes(manifest / "test_boxes.csv"), load_card(manifest).evaluation
    expected = tree.boxes()
    regions = np.zeros((len(expected), tree.size, tree.size), dtype=bool)
    for region, rows in zip(regions, expected.values(), strict=True):
        for x0, y0, x1, y1 in rows:
            region[y0:y1, x0:x1] = True
    protocol = get_protocol(evaluation.protocol)
    ciou = score(regions, list(expected), boxes, protocol, threshold=evaluation.threshold).ciou
    # Of sources that do not overlap, each is a share of the region, and the shares add up to 1.
    perfect = [1 / len(rows) if tree.per_source else 1 for rows in expected.values()]
    np.testing.assert_allclose(ciou, perfect, rtol=1e-12)


def check_frames(tree: Tree, project: Path) -> None:
    shards = ShardSet.open(project / "data" / tree.name / "shards/test")
    frames, log_mel = shards.read(range(len(shards)))
    audio = load_card(project / "data_manifests" / tree.name).audio
    assert log_mel.shape[1:] == (audio.n_mels, audio.n_frames)
    if tree.frame_number is not None:
        assert {number_of(frame) for frame in frames} == {tree.frame_number}


@pytest.mark.parametrize("make", IN_PROCESS, ids=lambda make: make.__name__)
@pytest.mark.usefixtures("one_worker")
def test_from_the_files_of_the_dataset_to_a_score(make: Callable[[Path], Tree], project: Path) -> None:
    tree = make(project)
    import_tree(tree, project)
    check_boxes(tree, project)
    run_stages(project)
    check_scores(tree, project)
    check_frames(tree, project)


@pytest.mark.usefixtures("one_worker")
def test_a_dataset_is_scored_with_the_models_of_another(project: Path) -> None:
    tree, other = importer_trees.music_synthetic_build(project), importer_trees.vggss(project)
    soundspot.main(["import", *other.command, *map(str, other.arguments)], standalone_mode=False)
    import_tree(tree, project)
    make_alike(project / "data_manifests" / other.name, project / "data_manifests" / tree.name)
    write_params(project, read_params(project) | {"cross_datasets": [other.name]})
    for each in (tree, other):
        check_boxes(each, project)
    run_stages(project)
    check_scores(tree, project)
    check_metrics(other, project / "results" / tree.name / "on" / other.name)
    for each in (tree, other):
        check_frames(each, project)


def make_alike(manifest: Path, model: Path) -> None:
    """Give a card the frames and spectrograms of another, as its models want them."""
    card, wanted = (yaml.safe_load((folder / "dataset.yaml").read_text()) for folder in (manifest, model))
    assert card["audio"] != wanted["audio"]
    (manifest / "dataset.yaml").write_text(yaml.safe_dump(card | {key: wanted[key] for key in ("audio", "image_size")}))
