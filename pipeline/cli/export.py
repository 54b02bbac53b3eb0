"""`soundspot export`: a trained model as a file for other programs, with its card."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import PATH, FiniteRange, target_options


@click.command()
@click.argument("target", metavar="MODEL|VARIANT")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "torch"]),
    required=True,
    help="ONNX (.onnx) or TorchScript (.pt).",
)
@click.option("-o", "--output", required=True, type=PATH, help="The file to write; its card is OUTPUT.md.")
@click.option("--shards", type=PATH, help="Compare on the first clips of these shards. Default: invented inputs.")
@click.option(
    "--tolerance",
    type=FiniteRange(min=0),
    default=1.0e-4,
    show_default=True,
    help="Largest difference from the original that is put up with.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@target_options
def export(
    target: str,
    format_: str,
    output: Path,
    shards: Path | None,
    tolerance: float,
    overwrite: bool,
    as_json: bool,
    dataset: str | None,
    seed: int | None,
    params_path: Path,
) -> None:
    """Write a model as one file that runs without soundspot, and beside it a model card, and its calibration if it has one.

    The file takes frames and log-mels and gives raw response maps and audio embeddings; it says itself how its inputs are
    prepared, and the card has the code. It is compared with the original, and not left behind where they differ.

    \b
    Example:
      soundspot export iterative --format onnx -o iterative.onnx
      soundspot export runs/demo/iterative/model.pt --format torch -o iterative.pt --shards data/demo/shards/test
    """
    import json
    from dataclasses import asdict

    from pipeline.apps.export.export import check_output, companions_of, export_model
    from pipeline.apps.export.model_card import look_around, model_card
    from pipeline.cli.targets import resolve_model
    from pipeline.common.files import write_text
    from pipeline.evaluation.calibration import find_calibration, write_calibration

    model = resolve_model(target, dataset=dataset, seed=seed, params_path=params_path)
    beside = companions_of(output)
    check_output(output, format=format_, overwrite=overwrite, beside=(beside.card, beside.calibration))
    around, calibration = look_around(model), find_calibration(model)
    exported = export_model(model, output, format=format_, tolerance=tolerance, shards=shards, overwrite=overwrite)
    write_text(beside.card, model_card(exported, around))
    if calibration:
        write_calibration(beside.calibration, calibration)
    else:
        beside.calibration.unlink(missing_ok=True)  # of what was exported there before
    calibrated = str(beside.calibration) if calibration else None
    parity = exported.parity
    if as_json:
        files = {"file": str(output), "card": str(beside.card), "calibration": calibrated}
        facts = {**files, "bytes": exported.size, "tolerance": tolerance}
        click.echo(json.dumps({**facts, "parity": asdict(parity), "facts": exported.facts}, indent=2))
        return
    click.echo(
        f"{parity.n_clips} clips ({parity.inputs}): largest difference of maps {parity.response:.1e}, of audio embeddings "
        f"{parity.audio_embedding:.1e}; tolerance {tolerance:.1e}"
    )
    click.echo(
        f"wrote {output} ({exported.size / 1e6:.1f} MB) and {beside.card}" + (f", {calibrated}" if calibrated else "")
    )
