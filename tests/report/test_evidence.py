"""`soundspot evidence`: reading results, the claims of the paper, the page and its figures."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from PIL import Image

from pipeline.cli.main import soundspot
from pipeline.common.console import run_command
from pipeline.common.errors import EvaluationError
from pipeline.evaluation.labels import label_of
from pipeline.methods.registry import METHODS
from pipeline.report.evidence.claims import CLAIMS, Claim, check, published_difference
from pipeline.report.evidence.epochs import audio_is_related, regions_settle
from pipeline.report.evidence.findings import (
    below_start_sentence,
    content_free_sentence,
    rules_sentence,
    shuffled_sentence,
)
from pipeline.report.evidence.page import page
from pipeline.report.evidence.picture import row_groups
from pipeline.report.evidence.results import read_results
from tests.support.made_results import CLIPS, successes, write_content_free, write_row


def make(folder, *, mosaic=False, **rows):
    """Write results: each row has a number of successes per seed (as the quadrant accuracy as well, for mosaics)."""
    write_content_free(folder, mosaic=mosaic)
    for name, counts in rows.items():
        ciou = successes(*counts)
        write_row(folder / name, ciou, quadrant=ciou[:, ::-1] if mosaic else None)
    return folder


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_read_by_seed_and_clip(tmp_path):
    results = read_results(make(tmp_path / "demo", iterative=(20, 30), initial=(10, 20), mine=(1, 1)))
    assert (results.name, list(results.rows)) == ("demo", ["initial", "iterative", "mine"])
    row = results.rows["iterative"]
    assert (row.seeds, len(row.clip_ids), row.metrics["success_rate"]) == ((0, 1), CLIPS, 25 / CLIPS)
    np.testing.assert_array_equal(row.values["success_rate"], successes(20, 30))
    # A cIoU of 1 succeeds at all 21 thresholds, one of 0 only at the first, which has half a weight.
    np.testing.assert_allclose(row.values["auc"], np.where(successes(20, 30) == 1, 1, 0.025))
    assert results.metrics == ("success_rate", "auc")
    assert "attention" in results.missing
    assert not {"initial", "dsol_two_stage"} & set(results.missing)


def test_mosaics_are_judged_by_quadrant_accuracy(tmp_path):
    results = read_results(make(tmp_path / "real", mosaic=True, iterative=(20, 30)))
    assert results.metrics == ("quadrant_accuracy", "success_rate", "auc")
    np.testing.assert_array_equal(results.rows["iterative"].values["quadrant_accuracy"], successes(20, 30)[:, ::-1])


@pytest.mark.parametrize("damage", ["no seed", "twice", "other", "text", "column", "split", "no baselines", "clips"])
def test_damaged_or_mixed_results_are_refused(tmp_path, damage):
    folder = make(tmp_path / "demo", iterative=(20, 30), initial=(10, 20))
    path = folder / "iterative" / "scores.csv"
    lines = path.read_text().splitlines(keepends=True)
    if damage == "no seed":
        path.write_text("".join(lines[: CLIPS + 1]))
    elif damage == "twice":
        path.write_text("".join([*lines, lines[-1]]))
    elif damage == "other":
        write_row(tmp_path / "other", successes(21, 30))
        path.write_text((tmp_path / "other" / "scores.csv").read_text())
    elif damage == "text":
        path.write_text("".join(lines).replace(",1.0,", ",one,", 1))
    elif damage == "column":
        path.write_text("".join(lines).replace("shuffled_ciou", "shuffled"))
    elif damage == "split":
        metrics = folder / "iterative" / "scores.json"
        metrics.write_text(metrics.read_text().replace('"test"', '"validation"'))
    elif damage == "no baselines":
        (folder / "baselines.json").write_text("{}")
    else:
        for name in ("scores.json", "scores.csv"):
            file = folder / "iterative" / name
            file.write_text(file.read_text().replace("c000", "d000"))
    with pytest.raises(EvaluationError, match=r"demo.*(dvc repro|run `)"):
        read_results(folder)


def test_a_folder_without_scores_is_one_line(tmp_path):
    (tmp_path / "demo" / "itr").mkdir(parents=True)
    with pytest.raises(EvaluationError, match="demo"):
        read_results(tmp_path / "demo")


def test_a_claim_compares_the_same_seeds_and_clips(tmp_path):
    folder = tmp_path / "demo"
    make(folder, itr=(24, 26, 28))
    # Another order of seeds, and one that the other row does not have.
    write_row(folder / "initial", successes(18, 40, 20), seeds=(2, 7, 0))
    finding = check(Claim("", "itr", ("initial",)), read_results(folder))
    difference = finding.differences["success_rate"]
    assert difference.of_seeds == pytest.approx(((24 - 20) / CLIPS, (28 - 18) / CLIPS))
    assert difference.value == pytest.approx(7 / CLIPS)


def test_rows_without_a_common_seed_are_refused(tmp_path):
    folder = make(tmp_path / "demo", itr=(24, 26))
    write_row(folder / "initial", successes(18, 40), seeds=(5, 7))
    with pytest.raises(EvaluationError, match="itr and initial"):
        check(Claim("", "itr", ("initial",)), read_results(folder))


def test_the_best_of_several_others_is_compared(tmp_path):
    results = read_results(make(tmp_path / "demo", iterative=(30, 31), itr=(20, 20), initial=(25, 26)))
    assert check(Claim("", "iterative", ("itr", "initial")), results).other == "initial"
    content_free = check(Claim("", "iterative", ("random", "all_ones", "centered_gaussian", "mean_of_boxes")), results)
    assert (content_free.other, content_free.missing) == ("centered_gaussian", ())
    assert content_free.primary.value == pytest.approx(30.5 / CLIPS - 0.2)
    # By another metric, another map may be the best.
    assert list(content_free.differences) == ["success_rate"]


def test_a_missing_row_is_named_and_not_compared(tmp_path):
    results = read_results(make(tmp_path / "demo", iterative=(30, 31), initial=(20, 21)))
    for others, missing in ((("dmc",), ("dmc",)), (("dmc", "initial"), ("dmc",))):
        finding = check(Claim("", "iterative", others), results)
        assert (finding.differences, finding.missing) == ({}, missing)
    assert check(Claim("", "itr", ("iterative",)), results).missing == ("itr",)


def test_the_papers_differences_are_those_that_it_prints():
    printed = {claim.title: published_difference(claim) for claim in CLAIMS}
    assert printed["Iterating beats plain contrastive learning"] == (6.4, 2.1)
    assert printed["The full method beats plain contrastive learning at the same temperature"] is None
    assert printed["The inter-frame relation helps on top of intra-frame sampling"] == (1.6, 1.1)
    assert printed["The full method is the best of its ablation"] == (1.6, 1.1)
    assert printed["The full method beats Attention"] == (28.9, 14.2)
    # Of two values for MSSL, the one of the same table.
    assert printed["The full method beats MSSL"] == (18.8, 8.4)
    assert all(values is None or values[0] > 0 for values in printed.values())


def test_content_free_maps_and_the_rows_that_are_not_above_them(tmp_path):
    results = read_results(make(tmp_path / "demo", iterative=(30, 31), dmc=(8, 9)))
    assert content_free_sentence(results) == (
        "The best content-free map, centered Gaussian, reaches 20.0% success rate. Not shown to be above it in "
        "success rate: DMC."
    )


def test_another_rule_moves_the_scores(tmp_path):
    folder = make(tmp_path / "demo", iterative=(30, 30))
    write_row(folder / "dmc", successes(10, 10), median=successes(38, 38))
    text = rules_sentence(read_results(folder))
    assert "instead of 0.5" in text
    assert "iterative (Eq. 7) from 75.0% to 0.0% and all ones from 10.0% to 90.0%" in text
    assert "The best row is DMC with 95.0%, instead of iterative (Eq. 7) with 75.0%." in text


def test_shuffled_audio_is_compared_by_clip(tmp_path):
    folder = make(tmp_path / "demo", initial=(1, 1))
    assert shuffled_sentence(read_results(folder)) == ""
    write_row(folder / "iterative", successes(30, 30), shuffled=successes(6, 6))
    assert "is 15.0% instead of 75.0%, 60.0 points less" in shuffled_sentence(read_results(folder))


def test_rows_below_their_initialization_are_named(tmp_path):
    folder = make(tmp_path / "demo", iterative=(30, 31), dmc=(2, 3), dsol=(14, 16))
    assert below_start_sentence(read_results(folder)) == ""
    write_row(folder / "untouched", successes(15, 15))
    text = below_start_sentence(read_results(folder))
    assert "37.5% success rate" in text
    assert "it for: DMC (-31.2, 0 of 2 seeds ahead)." in text


def write_epochs(folder, lines):
    (folder / "report").mkdir()
    header = "variant,seed,epoch,precision,recall,alike,mask_iou_previous\n"
    (folder / "report" / "relation_quality.csv").write_text(header + "".join(f"{line}\n" for line in lines))


def test_what_happens_over_the_epochs(tmp_path):
    folder = make(tmp_path / "demo", iterative=(30, 31), initial=(10, 10))
    results = read_results(folder)
    assert regions_settle(results) is None
    other = ["initial,0,9,0.1,0.1,0.1,0.1", "iterative,5,1,0.1,0.1,0.1,0.1"]  # another row; a seed without scores
    first = ["iterative,0,0,0.9,0.4,0.2,", "iterative,0,1,0.8,0.5,0.2,0.4", "iterative,0,3,0.7,0.6,0.2,0.7"]
    write_epochs(folder, [*other, *first, "iterative,1,1,0.8,0.5,0.2,0.5", "iterative,1,3,0.9,0.8,0.2,0.7"])
    regions, relation = regions_settle(results), audio_is_related(results)
    assert regions.difference.of_seeds == pytest.approx((0.3, 0.2))
    assert regions.values == pytest.approx({"first": 0.45, "last": 0.7, "epochs": 3})
    assert relation.difference.of_seeds == pytest.approx((0.5, 0.7))
    assert relation.values == pytest.approx({"precision": 0.8, "chance": 0.2, "recall": 0.7})


def test_a_relation_of_no_pair_in_the_last_epoch_has_no_precision(tmp_path):
    folder = make(tmp_path / "demo", iterative=(30, 31), initial=(10, 10))
    first = ["iterative,0,0,0.9,0.4,0.2,", "iterative,0,1,,0,0.2,0.4"]
    write_epochs(folder, [*first, "iterative,1,0,0.9,0.4,0.2,", "iterative,1,1,0.8,0.5,0.2,0.4"])
    assert audio_is_related(read_results(folder)) is None


def test_one_seed_is_said_to_be_one(tmp_path):
    folder = make(tmp_path / "demo", iterative=(30,), initial=(10,))
    results = read_results(folder)
    findings = {claim: [check(claim, results)] for claim in CLAIMS}
    text = page([results], findings, figures=["a.webp"], tables=["a.csv"], command="soundspot evidence demo")
    assert "another seed may reverse a verdict" in text
    assert "Student's t" not in text


def test_without_labels_only_the_regions_are_measured(tmp_path):
    folder = make(tmp_path / "demo", iterative=(30,))
    write_epochs(folder, ["iterative,0,1,,,,0.4", "iterative,0,2,,,,0.7"])
    results = read_results(folder)
    assert audio_is_related(results) is None
    assert regions_settle(results).difference.verdict == "no interval"


def test_rows_are_grouped_in_the_order_of_the_methods(tmp_path):
    first = read_results(make(tmp_path / "demo", iterative=(3,), dmc=(1,), initial=(2,)))
    second = read_results(make(tmp_path / "real", iterative=(3,), attention=(1,), mine=(1,)))
    own, others, without = row_groups([first, second]).values()
    assert own == [label_of("initial"), label_of("iterative")]
    assert others == ["Attention", "DMC", "mine"]
    assert without[0].endswith("shuffled audio")
    assert len(without) == 4


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of a demo with all rows but two, and of mosaics with few rows."""
    folder = tmp_path_factory.mktemp("project")
    rows = {name: (20 + i % 5, 21 + i % 5, 22 + i % 5) for i, name in enumerate(METHODS)}
    rows |= {"itr_intra": (36, 37, 38), "itr": (12, 14, 15), "dmc": (2, 2, 3)}
    del rows["attention"], rows["dsol_two_stage"]
    make(folder / "results" / "demo", **rows)
    make(folder / "results" / "real", mosaic=True, iterative=(20, 21), initial=(30, 31), itr=(20, 21))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            run_command(soundspot, ["evidence", "demo", "real", "--note", "two cores, 2026-11-28"])
    assert not ended.value.code
    return folder / "docs"


def test_the_page_has_a_sentence_for_each_claim_and_dataset(written):
    text = (written / "evidence.md").read_text()
    assert "`soundspot evidence demo real`" in text
    assert "two cores, 2026-11-28" in text
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    assert table[0] == ["claim", "paper: success rate", "demo: success rate", "real: quadrant accuracy"]
    verdicts = {row[0]: row[1:] for row in table[2:]}
    assert verdicts["Intra-frame sampling helps"] == ["+5.2", "**supported**, +58.3", "–"]
    assert verdicts["The full method beats plain contrastive learning"][2] == "**contradicted**, -25.0"
    assert "The full method beats Attention" not in verdicts
    sentences = re.findall(
        r"^- \*\*(demo|real): (supported|contradicted|inconclusive|no interval|not measured)\.\*\*", text, re.M
    )
    assert len(sentences) == 2 * len(verdicts)
    missing = text.split("## What is missing")[1]
    assert "rows not trained: Attention" in missing
    assert "The full method beats Attention" in missing
    counted = re.findall(r"\*\*(demo|real)\*\*: (\d+) claims about scores: (\d+) supported, (\d+) contra", text)
    of_scores = [row for row in table[2:] if "Figure" not in row[0]]
    for column, (name, number, supported, contradicted) in enumerate(counted, 2):
        verdicts_of = [row[column] for row in of_scores if row[column] != "–"]
        assert (name, int(number)) == (("demo", "real")[column - 2], len(verdicts_of))
        assert int(supported) == sum("supported" in each for each in verdicts_of)
        assert int(contradicted) == sum("contradicted" in each for each in verdicts_of)
    assert len(counted) == 2
    # The third claim of the mosaics is about the best content-free map.
    assert "By success rate, the paper's metric, 2 of them compare two rows" in text


def test_links_lead_to_figures_with_the_color_of_each_group(written):
    text = (written / "evidence.md").read_text()
    tables = re.findall(r"(?<!!)\[[^]]+\]\((images/[^)]+)\)", text)
    assert tables == ["images/evidence-rows.csv", "images/evidence-claims.csv"]
    assert all((written / table).is_file() for table in tables)
    links = re.findall(r"!\[[^]]+\]\((images/[^)]+)\)", text)
    assert links == ["images/evidence.webp", "images/evidence-auc.webp", "images/evidence-success.webp"]
    for link in links:
        pixels = np.asarray(Image.open(written / link).convert("RGB"))
        for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x6E, 0x6E, 0x6E)):
            assert (pixels == color).all(axis=2).sum() > 100, (link, color)


def test_the_numbers_beside_the_figures_are_those_of_the_page(written):
    rows = read_csv(written / "images" / "evidence-rows.csv")
    (own,) = [
        row for row in rows if (row["dataset"], row["row"], row["metric"]) == ("demo", "itr_intra", "success_rate")
    ]
    assert float(own["value"]) == pytest.approx(37 / CLIPS)
    assert [float(each) for each in own["seeds"].split()] == pytest.approx([36 / CLIPS, 37 / CLIPS, 38 / CLIPS])
    claims = read_csv(written / "images" / "evidence-claims.csv")
    (intra,) = [c for c in claims if (c["claim"], c["metric"]) == ("Intra-frame sampling helps", "success_rate")]
    assert float(intra["difference"]) == pytest.approx((37 - 41 / 3) / CLIPS)
    assert intra["verdict"] == "supported"


@pytest.mark.parametrize("arguments", [["nowhere"], ["demo", "--out", "page.html"], ["real", "demo", "results/demo"]])
def test_mistakes_are_one_line(written, monkeypatch, capsys, arguments):
    monkeypatch.chdir(written.parent)
    with pytest.raises(SystemExit) as ended:
        run_command(soundspot, ["evidence", *arguments])
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert arguments[-1] in message
