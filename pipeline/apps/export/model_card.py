"""The model card: what a trained model is, what made it, what it scores, where it fails, and how to use its exported file.

Conventions
-----------
Markdown without HTML and without a date: the same model in the same surroundings gives the same card. What the model's file does
not say (the dataset's title, the scores) is read from the project that the model lies in, if it lies in one; otherwise the
card says that it is not known. Scores are shown in percent with their 95 % intervals, as everywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.apps.export.export import Exported
from pipeline.apps.export.formats import FORMATS
from pipeline.apps.export.model_card_usage import usage
from pipeline.common.config import Card, EncoderSettings, ResNetSettings, load_card
from pipeline.common.errors import ExportError
from pipeline.common.project import CARD_FILE, ProjectPaths, locate
from pipeline.common.text_table import Table
from pipeline.evaluation.calibration import model_digest, read_calibration
from pipeline.methods.build import method_spec
from pipeline.model.encoders import cell_stride, receptive_field
from pipeline.scoring.tables import Row, comparison, with_shuffled


@dataclass(frozen=True)
class Surroundings:
    """What a project says of a model; nothing for a model that lies elsewhere.

    Attributes
    ----------
    paths : ProjectPaths or None
    card : Card or None
        Of the dataset that it was trained on.
    metrics : mapping or None
        Flat scores of the variant.
    baselines : mapping
        Content-free row → its flat scores.
    same_weights : bool or None
        Whether the scores are those of these weights; None where nothing tells.
    """

    paths: ProjectPaths | None = None
    card: Card | None = None
    metrics: Mapping[str, Any] | None = None
    baselines: Mapping[str, Mapping[str, Any]] | None = None
    same_weights: bool | None = None


def look_around(model: Path) -> Surroundings:
    """Read what the project keeps beside ``model.pt``.

    Raises
    ------
    SettingsError, CheckpointError, ExportError
        A card, a calibration or a file of scores is there and cannot be read.
    """
    paths = locate(model)
    if paths is None:
        return Surroundings()
    card = load_card(paths.manifest) if (paths.manifest / CARD_FILE).is_file() else None
    same = read_calibration(paths.calibration).model == model_digest(model) if paths.calibration.is_file() else None
    return Surroundings(paths, card, _read_scores(paths.metrics), _read_scores(paths.baselines), same)


def model_card(exported: Exported, around: Surroundings) -> str:
    """Return the card of an exported file, with a line end."""
    facts = exported.facts
    parts = [
        f"# {_plain(exported.path.name)}",
        _what(facts, exported),
        "## Training data",
        _data(facts, around),
        "## Settings",
        _settings(facts),
        "## Training",
        _training(facts),
        "## Scores",
        _scores(facts, around),
        "## Intended use",
        "Showing where in a picture a sound comes from, where it is seen and heard at once; research on such methods, and as a "
        "start or a comparison for training on one's own videos. Not for decisions about people, and not for any where a "
        "wrong place does harm: nothing here has been tested for that.",
        "## Limits",
        _limits(facts, around),
        "## How to use it",
        usage(exported.path.name, exported.format, facts),
    ]
    return "\n\n".join(parts) + "\n"


def _what(facts: Mapping[str, Any], exported: Exported) -> str:
    method, parity = facts["method"], exported.parity
    opset = f" (opset {facts['opset']})" if "opset" in facts else ""
    return (
        "A model that says where in a picture a sound comes from, trained on videos by soundspot and exported as "
        f"{FORMATS[exported.format].title}{opset}. Its method is `{method}`. {_method_line(method)}\n\n"
        f"On {parity.n_clips} clips ({_plain(parity.inputs)}), alone and in a batch, its response maps differ from those of the "
        f"original by at most {parity.response:.1e}, its audio embeddings by {parity.audio_embedding:.1e}.\n\n"
        + _list(
            {
                "Original": f"`model.pt` with SHA-256 `{facts['model_sha256']}`",
                "Fingerprint of settings and data": f"`{facts['fingerprint']}`",
                "Made by": f"{facts['program']}, torch {facts['torch']}",
            }
        )
    )


def _method_line(method: str) -> str:
    entry = method_spec(method)
    doc = (sys.modules[entry.kind.__module__].__doc__ or "").strip().splitlines()[0]
    switches = ", ".join(f"`{name}` {'on' if value else 'off'}" for name, value in entry.switches.items())
    return doc + (f" Here: {switches}." if switches else "")


def _data(facts: Mapping[str, Any], around: Surroundings) -> str:
    items = {
        "Clips": f"{facts['n_clips']:,}, each one frame with {facts['audio']['clip_seconds']:g} s of sound around it"
    }
    if around.paths is None:
        items = {"Dataset": "not known; the model's file does not name it", **items}
    elif around.card is None:
        items = {"Dataset": f"`{around.paths.dataset}`, without a card that says more", **items}
    else:
        card = around.card
        items = {
            "Dataset": f"`{around.paths.dataset}`: {_plain(card.title)}",
            "Source": _plain(card.source),
            "License": _plain(card.license),
            **items,
        }
    labels = facts["classes"]
    items["Labels"] = ", ".join(map(_plain, labels)) if labels else "none were used"
    return _list(items)


def _settings(facts: Mapping[str, Any]) -> str:
    encoder, audio = EncoderSettings.model_validate_json(json.dumps(facts["encoder"])), facts["audio"]
    rows, columns = facts["map_size"]
    return _list(
        {
            "Frame": f"squashed to {facts['image_size']} × {facts['image_size']} pixels",
            "Response map": f"{rows} × {columns} cells, normalized by {facts['normalization']}; sounding above "
            f"δ_v = {facts['delta_v']:g}",
            "Sound": f"{audio['clip_seconds']:g} s at {audio['sample_rate']} Hz, mono, scaled to peak 1",
            "Log-mel": f"{audio['n_mels']} bands (Slaney), Hann window and FFT of {audio['n_fft']}, hop {audio['hop_length']}, "
            f"magnitude to the power {audio['power']:g}, natural logarithm above {audio['log_floor']:g}",
            "Visual encoder": _resnet(encoder.visual),
            "Audio encoder": f"{_resnet(encoder.audio)}, {encoder.audio_pooling} over its map",
            "Embedding": f"{facts['embedding_dim']} values"
            + (", projected" if encoder.embedding_dim else ", not projected")
            + (", batch-normalized" if encoder.batch_norm else ""),
        }
    )


def _resnet(settings: ResNetSettings) -> str:
    blocks, strides, kernels = (
        " ".join(map(str, each)) for each in (settings.blocks, settings.strides, settings.kernel_sizes)
    )
    return f"ResNet with blocks {blocks}, width {settings.width}, strides {strides}, kernels {kernels}"


def _training(facts: Mapping[str, Any]) -> str:
    iteration = "\n".join(f"| `{name}` | {_plain(json.dumps(value))} |" for name, value in facts["iteration"].items())
    start = "" if facts["stage"] == "initialize" else " from an initialization by Eq. 3"
    return (
        f"Stage `{_plain(facts['stage'])}`, seed {facts['seed']}, {facts['epoch']} epochs{start}; the weights are the last "
        f"epoch's, not chosen by any score.\n\n| setting | value |\n| --- | --- |\n{iteration}"
    )


def _scores(facts: Mapping[str, Any], around: Surroundings) -> str:
    metrics = around.metrics
    if metrics is None:
        return "None are known: no `metrics.json` lies where an evaluation of this model would be."
    if around.same_weights is False:
        return "None are known: those in the project belong to other weights. `dvc repro evaluate` scores these."
    seeds = metrics.get("seeds", [facts["seed"]])
    text = (
        f"{metrics.get('n_clips', 0):,} clips of the split `{_plain(metrics.get('split', 'test'))}` under the protocol "
        f"`{_plain(metrics.get('protocol', ''))}`, success from cIoU {metrics.get('threshold', 0):g}; percent, with the bootstrap "
        "95 % interval over clips. The first rows know nothing of the clip; *shuffled audio* is the same model, given the sound "
        "of another clip."
    )
    if len(seeds) > 1:
        text += f" Means over the seeds {', '.join(map(str, seeds))}, of which this model is one."
    if around.same_weights is None:
        text += (
            " No calibration beside the scores names their weights; that they are these follows from their place alone."
        )
    return f"{text}\n\n{_score_table(facts['method'], around).markdown().strip()}"


def _score_table(method: str, around: Surroundings) -> Table:
    metrics = around.metrics or {}
    content_free = [
        Row(name, values)
        for name, values in (around.baselines or {}).items()
        if all(values.get(key) == metrics.get(key) for key in ("split", "protocol", "threshold"))
    ]
    return comparison([*content_free, *with_shuffled(method, metrics)])


def _limits(facts: Mapping[str, Any], around: Surroundings) -> str:
    encoder = EncoderSettings.model_validate_json(json.dumps(facts["encoder"]))
    rows, columns = facts["map_size"]
    stride, field = cell_stride(encoder.visual), receptive_field(encoder.visual)
    points = [
        "One map for each frame and window of sound: sources that sound together share it, and are not told apart.",
        "A map always has a highest place, also where nothing that is seen sounds, or all is silent. Leave silent windows out.",
        f"A map has {rows} × {columns} cells of {stride} × {stride} pixels of the squashed frame: what is smaller is lost, and no "
        f"outline is finer. A cell knows of nothing beyond the {field} × {field} pixels around it.",
        "It knows sounds and things like those that it was trained on; on others its maps mean little, and look no different.",
    ]
    if around.card and around.card.render:
        points.append(
            f"It was trained on an invented, rendered world ({_plain(around.card.title)}) and knows nothing else: real videos can be "
            "put through it, but what it says of them is worth nothing."
        )
    shuffled = _shuffled_point(around)
    return "\n".join(f"- {point}" for point in (*points, *shuffled))


def _shuffled_point(around: Surroundings) -> list[str]:
    metrics = around.metrics if around.same_weights is not False else None
    if not metrics or "shuffled_success_rate" not in metrics or "success_rate" not in metrics:
        return [
            "How much of its maps it owes to the sound, and how much to what usually sounds, has not been measured here."
        ]
    own, other = (100 * metrics[key] for key in ("success_rate", "shuffled_success_rate"))
    return [
        f"With the sound of another clip it still succeeds in {other:.1f} % of the clips, against {own:.1f} % with their own: so much "
        "it owes to what the frame alone shows, and to other clips that happen to sound alike."
    ]


def _read_scores(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path}: cannot be read as JSON ({error}); run `dvc repro evaluate`") from None
    if not isinstance(content, dict):
        raise ExportError(f"{path}: holds no scores; run `dvc repro evaluate`")
    return content


def _list(items: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in items.items())


def _plain(value: Any) -> str:
    """Return text on one line that Markdown shows as it is."""
    text = " ".join(str(value).split())
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#" else character for character in text)
