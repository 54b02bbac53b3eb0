"""`soundspot export`: write a trained model as ONNX or TorchScript, with a model card."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import PATH, FiniteRange, target_options
from pipeline.common.console import echo
from pipeline.common.text_table import counted


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
@click.option("--shards", type=PATH, help="Verify on the first clips of these shards. Default: random inputs.")
@click.option(
    "--tolerance",
    type=FiniteRange(min=0),
    default=1.0e-4,
    show_default=True,
    help="Maximum difference from the original model's outputs.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
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
    """Export a model to a single file that runs without soundspot, with a model card and its calibration, if any.

    The file takes frames and log-mel spectrograms and returns raw response maps and audio embeddings. Its metadata describes
    the preprocessing, and the card has example code. The outputs are compared with the original model's; if they differ, no
    file is written.

    \b
    Example:
      soundspot export iterative --format onnx -o iterative.onnx
      soundspot export runs/demo/iterative/model.pt --format torch -o iterative.pt --shards data/demo/shards/test
    """
    import json
    from dataclasses import asdict

    from pipeline.apps.export.export import check_output, companions_of, export_model
    from pipeline.apps.export.model_card import model_card, read_context
    from pipeline.cli.targets import resolve_model
    from pipeline.common.files import write_text
    from pipeline.evaluation.calibration import find_calibration, write_calibration

    model = resolve_model(target, dataset=dataset, seed=seed, params_path=params_path)
    # Check all outputs before the model is loaded and traced, which takes a while.
    beside = companions_of(output)
    check_output(output, format=format_, overwrite=overwrite, beside=(beside.card, beside.calibration))
    context, calibration = read_context(model), find_calibration(model)
    exported = export_model(model, output, format=format_, tolerance=tolerance, shards=shards, overwrite=overwrite)
    write_text(beside.card, model_card(exported, context))
    if calibration:
        write_calibration(beside.calibration, calibration)
    else:
        beside.calibration.unlink(missing_ok=True)  # left by an earlier export to this path
    calibrated = str(beside.calibration) if calibration else None
    parity = exported.parity
    if as_json:
        files = {"file": str(output), "card": str(beside.card), "calibration": calibrated}
        facts = {**files, "bytes": exported.size, "tolerance": tolerance}
        echo(json.dumps({**facts, "parity": asdict(parity), "facts": exported.facts}, indent=2))
        return
    echo(
        f"{counted(parity.n_clips, 'clip')} ({parity.inputs}): largest difference of maps {parity.response:.1e}, of audio embeddings "
        f"{parity.audio_embedding:.1e}; tolerance {tolerance:.1e}"
    )
    echo(f"wrote {output} ({exported.size / 1e6:.1f} MB) and {beside.card}" + (f", {calibrated}" if calibrated else ""))
