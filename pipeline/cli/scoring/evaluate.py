"""`soundspot evaluate` and `soundspot protocols`: score stored response maps under any protocol, and list the protocols."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import PATH, FiniteRange, params_option
from pipeline.common.console import echo, note
from pipeline.common.project import MAPS_FOLDER, manifest_folder, results_folder

if TYPE_CHECKING:
    from pipeline.apps.compare.rescore import RescoredRow
    from pipeline.common.config import Params
    from pipeline.scoring.map_file import ResponseMaps
    from pipeline.scoring.protocols import ScoringProtocol


@click.command()
@click.argument("variants", nargs=-1)
@click.option("--dataset", help="Name of the dataset. Default: the active one of the settings file.")
@click.option(
    "--on", "other", metavar="NAME", help="Another dataset on which the models were evaluated; one of cross_datasets."
)
@click.option(
    "--protocol",
    "names",
    multiple=True,
    default=["all"],
    show_default=True,
    help="A protocol, or all; may be repeated.",
)
@click.option("--split", help="Split of the maps. Default: score_split of the settings file.")
@click.option("--threshold", type=FiniteRange(0, 1), help="Minimum cIoU of a success. Default: the protocol's own.")
@click.option(
    "--legacy-float", is_flag=True, help="Use thresholds 0.05 * i as public code does, instead of the exact i / 20."
)
@click.option("--shuffled", is_flag=True, help="Also score each model with the audio of other clips.")
@click.option("--output", type=PATH, help="Write the scores to a .csv, .json or .md file.")
@params_option
def evaluate(
    variants: tuple[str, ...],
    dataset: str | None,
    other: str | None,
    names: tuple[str, ...],
    split: str | None,
    threshold: float | None,
    legacy_float: bool,
    shuffled: bool,
    output: Path | None,
    params_path: Path,
) -> None:
    """Score stored response maps under any protocols, side by side, without running a model.

    VARIANTS are trained methods whose maps `dvc repro evaluate` has stored; by default those of the settings file.
    Content-free baselines are scored under the same protocols for comparison.

    \b
    Example:
      soundspot evaluate iterative --protocol paper256 --protocol lvs224-median
      soundspot evaluate --protocol all --output rules.csv
      soundspot evaluate --on vggss --protocol iiou224
    """
    from pipeline.apps.compare.protocol_tables import check_output, write_rescored
    from pipeline.apps.compare.rescore import rescore
    from pipeline.common.config import load_card, load_params
    from pipeline.manifests.boxes import read_prior_boxes, read_split_boxes

    if output:
        check_output(output)
    protocols = _chosen(names)
    params = load_params(params_path)
    dataset, split = dataset or params.dataset, split or params.score_split
    if other:
        _check_other(other, dataset)
    scored = other or dataset
    manifest = manifest_folder(Path(), scored)
    boxes = read_split_boxes(manifest, split)
    results = results_folder(Path(), dataset, scored_on=other)
    remedy = f"put {other} into cross_datasets, and run `dvc repro`" if other else "run `dvc repro evaluate`"
    stored = _read_maps(variants, results / MAPS_FOLDER, params, split=split, remedy=remedy)
    rows = rescore(
        stored,
        boxes,
        protocols,
        prior_boxes=read_prior_boxes(manifest, split),
        threshold=threshold,
        legacy_float=legacy_float,
        shuffled=shuffled,
        grid=load_card(manifest).evaluation.grid,
    )
    _show(rows, f"{scored}, {split}, {_seeds_text(stored)}")
    _note_silence(rows, protocols)
    _note_normalization(stored, protocols)
    if output:
        facts = {"dataset": scored, "trained_on": dataset, "split": split, "legacy_float": legacy_float}
        write_rescored(output, rows, facts=facts)
        echo(f"wrote {output}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all fields as JSON.")
def protocols(as_json: bool) -> None:
    """List the named evaluation protocols with their settings and sources.

    Example: soundspot protocols
    """
    import json

    from pipeline.apps.compare.protocol_tables import protocols_as_json, rules_text
    from pipeline.scoring.protocols import PROTOCOLS

    rules = list(PROTOCOLS.values())
    echo(json.dumps(protocols_as_json(rules), indent=2) if as_json else rules_text(rules), nl=as_json)


def _chosen(names: tuple[str, ...]) -> list[ScoringProtocol]:
    from pipeline.scoring.protocols import PROTOCOLS, get_protocol

    if "all" in names:
        return list(PROTOCOLS.values())
    return [get_protocol(name) for name in dict.fromkeys(names)]


def _check_other(other: str, dataset: str) -> None:
    from pipeline.common.errors import EvaluationError

    if other == dataset:
        raise EvaluationError(f"--on {other}: is the training dataset; leave --on out")
    if not manifest_folder(Path(), other).is_dir():
        raise EvaluationError(f"--on {other}: no such dataset in data_manifests; import it, or fix the name")


def _read_maps(
    variants: tuple[str, ...], folder: Path, params: Params, *, split: str, remedy: str
) -> dict[str, list[ResponseMaps]]:
    """Read the maps of the given variants, or of those in the settings that have been evaluated."""
    from pipeline.apps.compare.rescore import read_stored_maps
    from pipeline.common.errors import EvaluationError
    from pipeline.common.project import MAPS_FILE

    chosen = list(dict.fromkeys(variants or params.variants))
    absent = [variant for variant in chosen if not (folder / variant / MAPS_FILE).exists()]
    there = [variant for variant in chosen if variant not in absent]
    if absent and (variants or not there):
        unknown = [variant for variant in absent if variant not in params.variants]
        if unknown:
            remedy = f"check the name, or add {', '.join(unknown)} to `variants` in the settings file and {remedy}"
        raise EvaluationError(f"{folder}: no response maps of {', '.join(absent)}; {remedy}")
    if absent:
        note(f"skipped, not evaluated yet: {', '.join(absent)}")
    return {variant: read_stored_maps(folder / variant, split=split) for variant in there}


def _note_silence(rows: list[RescoredRow], protocols: list[ScoringProtocol]) -> None:
    detecting = [protocol.name for protocol in protocols if "slavc" in protocol.extras]
    if not any(row.metrics[name]["n_skipped_silent"] for row in rows for name in detecting) and detecting:
        note(
            f"{', '.join(detecting)}: there are no silent clips, so AP and max-F1 only measure whether locations are "
            "correct; import silent clips with --silent and score the split test_silent"
        )


def _note_normalization(stored: dict[str, list[ResponseMaps]], protocols: list[ScoringProtocol]) -> None:
    from pipeline.evaluation.labels import LABELS
    from pipeline.scoring.tables import normalization_note

    own = {
        variant: {"normalization": maps[0].normalization} for variant, maps in stored.items() if maps[0].normalization
    }
    for text in dict.fromkeys(
        normalization_note(own, usual, labels=LABELS) for usual in dict.fromkeys(p.normalization for p in protocols)
    ):
        if text:
            note(text)


def _seeds_text(stored: dict[str, list[ResponseMaps]]) -> str:
    """Describe the seeds behind the scores: once if all variants share them, otherwise per variant."""
    seeds = {variant: [maps.seed for maps in of_seeds] for variant, of_seeds in stored.items()}
    if any(each != next(iter(seeds.values())) for each in seeds.values()):
        return ", ".join(f"{variant}: {_mean_over(each)}" for variant, each in seeds.items())
    return _mean_over(next(iter(seeds.values())))


def _mean_over(seeds: list[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"means over seeds {', '.join(map(str, seeds))}"


def _show(rows: list[RescoredRow], title: str) -> None:
    from pipeline.apps.compare.protocol_tables import counts_table, fitted, further_table, quadrant_table, rates_table

    width = shutil.get_terminal_size((120, 24)).columns
    echo(f"{title}; percent\n")
    for table in (rates_table(rows), quadrant_table(rows), further_table(rows), counts_table(rows)):
        for block in fitted(table, width=width) if table else ():
            echo(block.text())
