"""What the pipeline will write for a dataset: estimated file sizes, and whether the disk has room for them.

Sizes are bytes of the stored arrays, from their shapes and dtypes. Indices, checksums and compression are ignored: they
matter for files of a few kilobytes only. JPEG frames are the exception: theirs is a typical size.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.apps.preflight.findings import Output, Preflight, human_bytes
from pipeline.common.config import Card, Params, TrainingSettings
from pipeline.common.project import (
    FEATURES_PATTERN,
    INITIAL_RUN,
    LABELS_FOLDER,
    LABELS_PATTERN,
    MAPS_FILE,
    MAPS_FOLDER,
    MODEL_FILE,
    SHARD_PATTERN,
    STATE_FILE,
    WEIGHTS_FOLDER,
    WEIGHTS_PATTERN,
    features_folder,
    results_folder,
    runs_folder,
    shards_folder,
)
from pipeline.features.reader import n_views
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.methods.build import method_settings
from pipeline.model.backbones.build import backbone_stride
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.inference import inference
from pipeline.shards.jpeg import TYPICAL_BYTES_PER_PIXEL
from pipeline.training.spec import epochs_with_labels

_PATTERNS = {
    "shards": SHARD_PATTERN,
    "features": FEATURES_PATTERN,
    "pseudo-labels": LABELS_PATTERN,
    MODEL_FILE: MODEL_FILE,
    "checkpoints": WEIGHTS_PATTERN,
    "maps": MAPS_FILE,
}


def map_side(card: Card, settings: TrainingSettings) -> int:
    """Return the rows and columns of a response map; each stride of the visual encoder rounds up."""
    return math.ceil(card.image_size / backbone_stride(settings.encoder.visual))


def shard_output(params: Params, card: Card, dataset: str, split: str, n_clips: int) -> Output:
    """Return the shards of a split: frames, as pixels or as JPEG files of a typical size, and spectrograms."""
    encoding = params.extract.encoding
    frame = card.image_size**2 * (TYPICAL_BYTES_PER_PIXEL if encoding.frame_codec == "jpeg" else 3)
    spectrogram = card.audio.n_mels * card.audio.n_frames * np.dtype(encoding.log_mel).itemsize
    size = round(n_clips * (frame + spectrogram))
    count = math.ceil(n_clips / params.extract.clips_per_shard)
    return Output("shards", str(shards_folder(Path(), dataset, split)), count, size)


def feature_output(
    params: Params,
    card: Card,
    settings: TrainingSettings,
    dataset: str,
    split: str,
    n_clips: int,
    model: AudioVisualModel,
) -> Output:
    """Return the stored features of a split: float16, of each frame and, for training with flips, of the mirrored frame; of audio."""
    values = n_views(settings, split) * model.visual.dim * map_side(card, settings) ** 2
    if "audio" in settings.stored_features:
        with inference():
            values += model.audio_maps(torch.zeros(1, card.audio.n_mels, card.audio.n_frames)).numel()
    size = n_clips * 2 * values
    count = math.ceil(n_clips / params.extract.clips_per_shard)
    return Output("features", str(features_folder(Path(), dataset, split)), count, size)


def map_output(params: Params, folder: Path, n_clips: int, *, side: int) -> Output:
    """Return the response maps of one variant: float32, with own and with shuffled audio."""
    n_seeds = len(params.seeds)
    return Output("maps", str(folder), n_seeds, n_seeds * n_clips * 2 * 4 * side**2)


def estimate_outputs(
    preflight: Preflight,
    params: Params,
    card: Card,
    settings: TrainingSettings,
    variants: Sequence[str],
    model: AudioVisualModel,
) -> None:
    """Add to `preflight` everything that extraction, training and evaluation of its dataset write."""
    n_seeds, side, root = len(params.seeds), map_side(card, settings), runs_folder(Path(), preflight.dataset)
    n_train, n_scored = preflight.n_found(TRAIN_SPLIT), preflight.n_found(params.score_split)
    for split, n_clips in {TRAIN_SPLIT: n_train, params.score_split: n_scored}.items():
        preflight.outputs.append(shard_output(params, card, preflight.dataset, split, n_clips))
        if settings.stored_features:
            preflight.outputs.append(feature_output(params, card, settings, preflight.dataset, split, n_clips, model))
    labels = n_train * (2 * side**2 + 2 * model.dim + 3 * 4)  # maps and embeddings float16, three float32 values
    weights = sum(value.nbytes for value in model.state_dict().values())
    moments = 2 * sum(value.nbytes for value in model.parameters() if value.requires_grad)  # of AdamW
    for name in (INITIAL_RUN, *variants):
        own = method_settings(settings, name) if name in variants else None
        count = n_seeds * (len(epochs_with_labels(name, own)) if own else 1)
        preflight.outputs.append(Output("pseudo-labels", str(root / name / LABELS_FOLDER), count, count * labels))
        preflight.outputs.append(Output(MODEL_FILE, str(root / name), n_seeds, n_seeds * weights))
        if own:
            kept = n_seeds * (min(own.epochs + 1, own.keep_epochs) - 1)
            preflight.outputs.append(Output("checkpoints", str(root / name / WEIGHTS_FOLDER), kept, kept * weights))
    averaged = any(method_settings(settings, name).teacher_decay for name in variants)
    state = weights + moments + averaged * weights
    preflight.outputs.append(Output(f"{STATE_FILE}, while training", str(root), 1, state))
    maps = results_folder(Path(), preflight.dataset) / MAPS_FOLDER
    preflight.outputs += [map_output(params, maps / name, n_scored, side=side) for name in variants]


def check_disk(preflight: Preflight, project: Path) -> None:
    """Compare the outputs that do not exist yet with the free disk space."""
    preflight.disk_needed = sum(max(0, output.size - _existing_bytes(output, project)) for output in preflight.outputs)
    preflight.disk_free = shutil.disk_usage(project).free
    if preflight.disk_needed > preflight.disk_free:
        short = human_bytes(preflight.disk_needed - preflight.disk_free)
        preflight.problems.append(
            f"{project.resolve()}: {short} of disk space missing; free some, or train fewer variants"
        )
    elif 2 * preflight.disk_needed > preflight.disk_free:
        # DVC copies outputs into its cache where the file system supports neither links nor reflinks.
        preflight.notes.append(
            f"disk: DVC's cache may need another {human_bytes(preflight.disk_needed)}, which does not fit; "
            "`dvc config cache.type hardlink,symlink` avoids the copies"
        )


def _existing_bytes(output: Output, project: Path) -> int:
    """Return the size of the files of this output that exist already, over all seeds."""
    if output.what not in _PATTERNS:
        return 0
    folder = project / output.folder
    # RUN/seed_N/pseudo_labels lies next to RUN/pseudo_labels, so these two are searched from RUN.
    top = folder.parent if output.what in ("pseudo-labels", "checkpoints") else folder
    return sum(path.stat().st_size for path in top.rglob(_PATTERNS[output.what]))
