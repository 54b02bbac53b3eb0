"""Write the model card of an exported model: training data, settings, scores, limits and usage.

Conventions
-----------
Markdown without HTML and without a date, so the same model in the same project gives the same card. Facts that are not
in the model file (the dataset's title, the scores) are read from the model's project, if it is in one; otherwise the card
states that they are unknown. Scores are in percent with 95% intervals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.apps.export.export import Exported
from pipeline.apps.export.formats import FORMATS
from pipeline.apps.export.model_card_usage import usage
from pipeline.common.config import BackboneSettings, Card, EncoderSettings, ResNetSettings, load_card
from pipeline.common.errors import ExportError
from pipeline.common.files import file_digest
from pipeline.common.project import CARD_FILE, ProjectPaths, locate
from pipeline.common.reading import read_json
from pipeline.common.text_table import Table, counted, printable
from pipeline.evaluation.calibration import read_calibration
from pipeline.evaluation.labels import LABELS
from pipeline.methods.build import method_spec
from pipeline.model.backbones.build import backbone_stride
from pipeline.model.backbones.resnet import receptive_field
from pipeline.scoring.tables import Row, comparison, with_shuffled


@dataclass(frozen=True)
class ProjectContext:
    """What a project records about a model; empty for a model outside a project.

    Attributes
    ----------
    paths : ProjectPaths or None
    card : Card or None
        Card of the training dataset.
    metrics : mapping or None
        Flat scores of the variant.
    baselines : mapping
        Content-free baseline → its flat scores.
    same_weights : bool or None
        Whether the scores belong to these weights; None if unknown.
    """

    paths: ProjectPaths | None = None
    card: Card | None = None
    metrics: Mapping[str, Any] | None = None
    baselines: Mapping[str, Mapping[str, Any]] | None = None
    same_weights: bool | None = None


def read_context(model: Path) -> ProjectContext:
    """Read a model's dataset card and scores from its project.

    Raises
    ------
    SettingsError, CheckpointError, ExportError
        A card, a calibration or a score file exists but cannot be read.
    """
    paths = locate(model)
    if paths is None:
        return ProjectContext()
    card = load_card(paths.manifest) if (paths.manifest / CARD_FILE).is_file() else None
    # scores.json does not identify the weights, but the calibration that is written in the same evaluation does.
    same = read_calibration(paths.calibration).model == file_digest(model) if paths.calibration.is_file() else None
    return ProjectContext(paths, card, _read_scores(paths.scores), _read_scores(paths.baselines), same)


def model_card(exported: Exported, context: ProjectContext) -> str:
    """Return the card of an exported file, ending with a newline."""
    facts = exported.facts
    parts = [
        f"# {_plain(exported.path.name)}",
        _what(facts, exported),
        "## Training data",
        _data(facts, context),
        "## Settings",
        _settings(facts),
        "## Training",
        _training(facts),
        "## Scores",
        _scores(facts, context),
        "## Intended use",
        "Localizing visible sound sources in video frames; research on such methods; and as a starting point or a baseline "
        "for training on your own videos. Not for decisions about people, nor for uses in which a wrong location causes "
        "harm: the model has not been tested for these.",
        "## Limits",
        _limits(facts, context),
        "## How to use it",
        usage(exported.path.name, exported.format, facts),
    ]
    return "\n\n".join(parts) + "\n"


def _what(facts: Mapping[str, Any], exported: Exported) -> str:
    method, parity = facts["method"], exported.parity
    opset = f" (opset {facts['opset']})" if "opset" in facts else ""
    return (
        "A model that localizes the source of a sound in a video frame, trained on videos with soundspot and exported as "
        f"{FORMATS[exported.format].title}{opset}. {_method_line(method)}\n\n"
        f"On {counted(parity.n_clips, 'clip')} ({_plain(parity.inputs)}), alone and in a batch, its response maps differ from the "
        f"original's by at most {parity.response:.1e} and its audio embeddings by at most {parity.audio_embedding:.1e}.\n\n"
        + _list(
            {
                "Original": f"`model.pt` with SHA-256 `{facts['model_sha256']}`",
                "Fingerprint of settings and data": f"`{facts['fingerprint']}`",
                "Exported by": f"{facts['program']}, torch {facts['torch']}",
            }
        )
    )


def _method_line(method: str) -> str:
    spec = method_spec(method)
    switches = ", ".join(f"`{name}` {'on' if value else 'off'}" for name, value in spec.switches.items())
    return f"Its method is `{method}` ({spec.label}){f', with {switches}' if switches else ''}."


def _data(facts: Mapping[str, Any], context: ProjectContext) -> str:
    items = {
        "Clips": f"{facts['n_clips']:,}, each one frame with {facts['audio']['clip_seconds']:g} s of audio around it"
    }
    if context.paths is None:
        items = {"Dataset": "unknown; the model file does not name it", **items}
    elif context.card is None:
        items = {"Dataset": f"`{context.paths.dataset}`; it has no dataset card", **items}
    else:
        card = context.card
        items = {
            "Dataset": f"`{context.paths.dataset}`: {_plain(card.title)}",
            "Source": _plain(card.source),
            "License": _plain(card.license),
            **items,
        }
    labels = facts["classes"]
    items["Labels"] = ", ".join(map(_plain, labels)) if labels else "none used"
    return _list(items)


def _settings(facts: Mapping[str, Any]) -> str:
    encoder, audio = EncoderSettings.model_validate_json(json.dumps(facts["encoder"])), facts["audio"]
    rows, columns = facts["map_size"]
    return _list(
        {
            "Frame": f"squashed to {facts['image_size']} × {facts['image_size']} pixels",
            "Response map": f"{rows} × {columns} cells, normalized by {facts['normalization']}; sounding above "
            f"δ_v = {facts['delta_v']:g}",
            "Audio": f"{audio['clip_seconds']:g} s at {audio['sample_rate']} Hz, mono, scaled to peak 1",
            "Log-mel": f"{audio['n_mels']} bands (Slaney), Hann window and FFT of {audio['n_fft']}, hop {audio['hop_length']}, "
            f"magnitude to the power {audio['power']:g}, natural logarithm above {audio['log_floor']:g}",
            "Visual encoder": _backbone(encoder.visual),
            "Audio encoder": f"{_backbone(encoder.audio)}, {encoder.audio_pooling} over its map",
            "Embedding": f"{facts['embedding_dim']} values"
            + (", projected" if encoder.embedding_dim else ", not projected")
            + (", batch-normalized" if encoder.batch_norm else ""),
        }
    )


def _backbone(settings: BackboneSettings) -> str:
    learned = {"all": "", "last_stage": ", only its last stage trained", "none": ", not trained"}[settings.trainable]
    start = "" if settings.weights is None else f", starting from {_plain(settings.weights)}"
    if not isinstance(settings, ResNetSettings):
        return f"`{settings.backbone}`, stride {settings.stride}{start}{learned}"
    blocks, strides, kernels = (
        " ".join(map(str, each)) for each in (settings.blocks, settings.strides, settings.kernel_sizes)
    )
    return (
        f"ResNet with blocks {blocks}, width {settings.width}, strides {strides}, kernels {kernels}, padding {settings.padding}"
        f"{start}{learned}"
    )


def _training(facts: Mapping[str, Any]) -> str:
    iteration = "\n".join(f"| `{name}` | {_plain(json.dumps(value))} |" for name, value in facts["iteration"].items())
    start = "" if facts["stage"] == "initialize" else " from an initialization by Eq. 3"
    return (
        f"Stage `{_plain(facts['stage'])}`, seed {facts['seed']}, {facts['epoch']} epochs{start}; the weights are from the last "
        f"epoch, not selected by any score.\n\n| setting | value |\n| --- | --- |\n{iteration}"
    )


def _scores(facts: Mapping[str, Any], context: ProjectContext) -> str:
    metrics = context.metrics
    if metrics is None:
        return "Unknown: this model has no `scores.json` from an evaluation."
    if context.same_weights is False:
        return (
            "Unknown: the scores in the project belong to other weights. Run `dvc repro evaluate` to score this model."
        )
    seeds = metrics.get("seeds", [facts["seed"]])
    text = (
        f"{metrics.get('n_clips', 0):,} clips of the split `{_plain(metrics.get('split', 'test'))}` under the protocol "
        f"`{_plain(metrics.get('protocol', ''))}`, success at cIoU ≥ {metrics.get('threshold', 0):g}; percent, with the bootstrap "
        "95% interval over clips. The first rows are content-free baselines; *shuffled audio* is the same model with the audio "
        "of another clip."
    )
    if len(seeds) > 1:
        text += f" Means over the seeds {', '.join(map(str, seeds))}; this model is one of them."
    if context.same_weights is None:
        text += " The scores are attributed to this model by their location only, because no calibration identifies the weights."
    return f"{text}\n\n{_score_table(facts['method'], context).markdown().strip()}"


def _score_table(method: str, context: ProjectContext) -> Table:
    metrics = context.metrics or {}
    # Scores under another split, protocol or threshold are not comparable.
    content_free = [
        Row(name, values)
        for name, values in (context.baselines or {}).items()
        if all(values.get(key) == metrics.get(key) for key in ("split", "protocol", "threshold"))
    ]
    return comparison([*content_free, *with_shuffled(method, metrics)], labels=LABELS)


def _limits(facts: Mapping[str, Any], context: ProjectContext) -> str:
    encoder = EncoderSettings.model_validate_json(json.dumps(facts["encoder"]))
    rows, columns = facts["map_size"]
    stride = backbone_stride(encoder.visual)
    seen = receptive_field(encoder.visual) if isinstance(encoder.visual, ResNetSettings) else None
    field = f" The receptive field of a cell is {seen} × {seen} pixels." if seen else ""
    points = [
        "There is one map per frame and audio window: sources that sound at the same time share it and are not separated.",
        "A map always has a maximum, even if no visible object sounds or the audio is silent. Skip silent windows.",
        f"A map has {rows} × {columns} cells of {stride} × {stride} pixels of the squashed frame, so smaller objects and finer "
        f"outlines are lost.{field}",
        "The model is only valid for sounds and objects like those in its training data; maps for others look plausible but "
        "mean little.",
    ]
    if context.card and context.card.render:
        points.append(
            f"It was trained on rendered, synthetic videos only ({_plain(context.card.title)}), so its maps for real videos are "
            "meaningless."
        )
    shuffled = _shuffled_point(context)
    return "\n".join(f"- {point}" for point in (*points, *shuffled))


def _shuffled_point(context: ProjectContext) -> list[str]:
    metrics = context.metrics if context.same_weights is not False else None
    if not metrics or "shuffled_success_rate" not in metrics or "success_rate" not in metrics:
        return [
            "How much its maps depend on the audio, rather than on which objects usually make sounds, has not been measured."
        ]
    own, other = (100 * metrics[key] for key in ("success_rate", "shuffled_success_rate"))
    return [
        f"With the audio of another clip it still succeeds on {other:.1f}% of the clips, compared to {own:.1f}% with their own. "
        "This part is due to the frame alone, and to other clips that happen to sound alike."
    ]


def _read_scores(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = read_json(path, ExportError)
    except ExportError as error:
        raise ExportError(f"{path}: cannot be read as JSON ({error}); run `dvc repro evaluate`") from None
    if not isinstance(content, dict):
        raise ExportError(f"{path}: contains no scores; run `dvc repro evaluate`")
    return content


def _list(items: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in items.items())


def _plain(value: Any) -> str:
    """Return text on one line, escaped for Markdown."""
    text = printable(" ".join(str(value).split()))
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#" else character for character in text)
