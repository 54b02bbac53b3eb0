"""`soundspot demo localize`: which clips it takes, and that it localizes them."""

import pytest

from pipeline.cli.demo import evenly_scored
from pipeline.common.files import write_csv
from pipeline.datasets.demo.dataset import write_manifest
from pipeline.manifests.clips import read_clips
from tests.cli.test_evaluate import PARAMS
from tests.cli.test_localize import files, video
from tests.cli.test_main import run
from tests.support.localizing import save_model


@pytest.mark.parametrize(
    ("n_clips", "ids"),
    [(1, ["c0"]), (2, ["c4", "c3"]), (5, ["c1", "c4", "c0", "c3", "c2"]), (9, ["c1", "c4", "c0", "c3", "c2"])],
)
def test_clips_are_evenly_spaced_by_score(n_clips, ids):
    ciou = {f"c{i}": value for i, value in enumerate((0.5, 0.0, 1.0, 0.75, 0.25))}
    assert evenly_scored(ciou, n_clips) == ids


def test_clips_without_a_video_are_passed_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    manifest = tmp_path / "data_manifests" / "demo"
    write_manifest(manifest, seed=0, train=2, validation=0, test=2, media_root="media")
    clips = read_clips(manifest / "test.csv")
    text = (manifest / "test.csv").read_text()
    (manifest / "test.csv").write_text(text.replace(f"{clips[0].video},,", ",frame.png,audio.wav"))
    assert not read_clips(manifest / "test.csv")[0].video
    video(tmp_path / "media" / clips[1].video)
    rows = [(clip.clip_id, 0, ciou) for clip, ciou in zip(clips, (0.1, 0.9), strict=True)]
    write_csv(tmp_path / "results/demo/iterative/scores.csv", ("clip_id", "seed", "ciou"), rows)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "runs/demo/iterative").mkdir(parents=True)
    save_model(tmp_path / "runs/demo/iterative/model.pt")
    assert run("demo", "localize", "--clips", "2") == 0
    assert files(tmp_path / "localized/demo") == [f"{clips[1].clip_id}.mp4"]


def test_the_clip_of_the_median_score_is_localized(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    manifest = tmp_path / "data_manifests" / "demo"
    write_manifest(manifest, seed=0, train=2, validation=0, test=3, media_root="media")
    clips = read_clips(manifest / "test.csv")
    for clip in clips:
        video(tmp_path / "media" / clip.video)
    rows = [(clip.clip_id, 0, ciou) for clip, ciou in zip(clips, (0.9, 0.1, 0.4), strict=True)]
    write_csv(tmp_path / "results/demo/iterative/scores.csv", ("clip_id", "seed", "ciou"), rows)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "runs/demo/iterative").mkdir(parents=True)
    save_model(tmp_path / "runs/demo/iterative/model.pt")
    assert run("demo", "localize") == 0
    assert capsys.readouterr().out.endswith("1 localized\n")
    assert files(tmp_path / "localized/demo") == [f"{clips[2].clip_id}.mp4"]
    assert run("demo", "localize", "--variant", "initial") == 1
    assert "results/demo/initial/scores.csv: no such scores" in capsys.readouterr().err
    for others in ([("stranger", 0, 0.5)], [(clips[0].clip_id, 7, 0.5)]):
        write_csv(tmp_path / "results/demo/iterative/scores.csv", ("clip_id", "seed", "ciou"), others)
        assert run("demo", "localize") == 1
        assert "error: results/demo/iterative/scores.csv: not of seed 0" in capsys.readouterr().err
