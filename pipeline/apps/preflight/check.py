"""What is missing before a dataset can be trained on, how large the files will be, how long it takes, and whether it fits.

Conventions
-----------
Sizes are bytes, times wall-clock s on this machine. Nothing is written to the project. A problem is something that would
stop a stage, in one line with what to do; a note is good to know. File sizes are estimated from array shapes
(`pipeline.apps.preflight.outputs`); time and memory are measured on a few batches (`pipeline.apps.preflight.timing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from pipeline.apps.preflight.datasets import check_cross_dataset, check_lists, check_media, check_scored
from pipeline.apps.preflight.findings import Preflight, human_bytes
from pipeline.apps.preflight.memory import activation_bytes, available_bytes
from pipeline.apps.preflight.outputs import check_disk, estimate_outputs, map_side
from pipeline.apps.preflight.timing import profile_stages, stage_times
from pipeline.common.cluster import available_cores
from pipeline.common.config import Card, LabeledSettings, Params, TrainingSettings, load_card
from pipeline.common.errors import SoundspotError
from pipeline.common.project import manifest_folder
from pipeline.manifests.clips import TRAIN_SPLIT, Clip, clip_list_path
from pipeline.manifests.prepared import check_fills_batch, resolve_media_root
from pipeline.methods.base import Method
from pipeline.methods.build import build_method, method_settings
from pipeline.model.backbones.build import backbone_stride
from pipeline.model.devices import select_device
from pipeline.model.encoders import AudioVisualModel, build_model
from pipeline.model.inference import inference
from pipeline.training.class_labels import classes_of_clips


def check_dataset(
    project: Path,
    params: Params,
    dataset: str,
    *,
    variants: Sequence[str],
    n_batches: int,
    device: str = "auto",
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Preflight:
    """Check everything that the pipeline needs for one dataset.

    Parameters
    ----------
    project : Path
        The project's root. Weight files in the settings are relative to the working directory, as in training.
    params : Params
    dataset : str
        A folder of ``data_manifests`` and a block of `params.training`.
    variants : sequence of str
        Methods to train.
    n_batches : int
        Batches per measured epoch; 0 measures neither time nor memory.
    device : str
        As for training.
    on_stage : callable
        Called with the name of each stage before it is measured.
    """
    preflight = Preflight(dataset)
    settings = params.training.get(dataset)
    if settings is None:
        preflight.problems.append(
            f"training.{dataset}: no such block; copy one of {', '.join(params.training)} and adapt it"
        )
        return preflight
    manifest = manifest_folder(project, dataset)
    card = preflight.attempt(lambda: load_card(manifest))
    if card is None:
        return preflight
    splits = check_lists(preflight, manifest, card, needed=(TRAIN_SPLIT, params.score_split))
    found = check_media(preflight, splits, card, dataset=dataset, root=resolve_media_root(card, project, dataset))
    train = found.get(TRAIN_SPLIT, [])
    if params.score_split in found:
        check_scored(preflight, manifest, card, params.score_split, found=found[params.score_split], train=train)
    model = _check_encoders(preflight, settings, card)
    trainable = [
        name for name in variants if preflight.attempt(partial(_check_method, settings, name, card, train)) is not None
    ]
    if TRAIN_SPLIT in found:
        preflight.attempt(lambda: check_fills_batch(len(train), settings.batch_size))
    _check_labels(preflight, settings, trainable, train, clip_list_path(manifest, TRAIN_SPLIT))
    if model is None or not trainable:
        return preflight
    for other in params.cross_datasets if dataset == params.dataset else ():
        side = map_side(card, settings)
        check_cross_dataset(preflight, project, params, card, other, train=train, variants=trainable, side=side)
    estimate_outputs(preflight, params, card, settings, trainable, model)
    check_disk(preflight, project)
    labels = _label_memory(preflight, model, map_side(card, settings))
    if n_batches and not _fits(preflight, card, settings, model, device):
        return preflight
    _measure(
        preflight,
        params,
        card,
        settings,
        trainable,
        labels,
        n_batches=n_batches,
        device=device,
        on_stage=on_stage,
    )
    return preflight


def _check_encoders(preflight: Preflight, settings: TrainingSettings, card: Card) -> AudioVisualModel | None:
    """Check encoder settings and weights. Return a model with random weights, None if the encoders do not work with these clips."""
    with torch.random.fork_rng(devices=[]):
        # Size and speed do not depend on the weights, so a missing file does not end the check.
        model = preflight.attempt(lambda: build_model(settings.encoder.without_weights))
        if model is not None and settings.encoder != settings.encoder.without_weights:
            preflight.attempt(lambda: build_model(settings.encoder))
    return None if model is None else preflight.attempt(lambda: _encodes(model, card))


def _encodes(model: AudioVisualModel, card: Card) -> AudioVisualModel:
    """Return the model. Raises SettingsError if a backbone does not take frames or spectrograms of this size."""
    with inference():
        model.visual_features(torch.zeros(1, 3, card.image_size, card.image_size))
        model.audio_features(torch.zeros(1, card.audio.n_mels, card.audio.n_frames))
    return model


def _check_method(settings: TrainingSettings, name: str, card: Card, train: Sequence[Clip]) -> Method:
    """Return the method. Raises SettingsError if its settings are inconsistent, or do not suit the training clips."""
    method = build_method(name, method_settings(settings, name))
    if train:
        method.check(n_clips=len(train), cells=card.image_size // backbone_stride(settings.encoder.visual))
    return method


def _check_labels(
    preflight: Preflight, settings: TrainingSettings, variants: Sequence[str], clips: Sequence[Clip], path: Path
) -> None:
    """Check that methods that learn from class labels find one for every training clip."""
    of_methods = [method_settings(settings, name) for name in variants] if clips else []
    sources = dict.fromkeys(own.label_file for own in of_methods if isinstance(own, LabeledSettings))
    for label_file in [None if name is None else Path(name) for name in sources]:
        ids = [clip.clip_id for clip in clips]
        preflight.attempt(partial(classes_of_clips, clips, ids, where=path, label_file=label_file))


def _label_memory(preflight: Preflight, model: AudioVisualModel, side: int) -> int:
    """Return the memory for float32 pseudo-labels: of this epoch and the last, each as read and in the shards' order."""
    return 4 * preflight.n_found(TRAIN_SPLIT) * 4 * (side**2 + model.dim)


def _fits(preflight: Preflight, card: Card, settings: TrainingSettings, model: AudioVisualModel, device: str) -> bool:
    """Report a batch that is certain not to fit into the memory of a CPU: trying it would end this process."""
    chosen = preflight.attempt(lambda: select_device(device))
    if chosen is None or chosen.type != "cpu":
        return True
    shape = (card.audio.n_mels, card.audio.n_frames)
    needed = activation_bytes(model, image_size=card.image_size, log_mel_shape=shape, batch_size=settings.batch_size)
    available = available_bytes(chosen)
    if needed <= available:
        return True
    smaller = max(2, int(0.9 * available / needed * settings.batch_size))
    preflight.problems.append(
        f"training.{preflight.dataset}.batch_size: a batch of {settings.batch_size} needs at least {human_bytes(needed)} on "
        f"{chosen}, but only {human_bytes(available)} are available, and the system would end the process without a message; "
        f"lower it to at most {smaller}, or use a machine with more memory"
    )
    return False


def _measure(
    preflight: Preflight,
    params: Params,
    card: Card,
    settings: TrainingSettings,
    variants: Sequence[str],
    labels: int,
    *,
    n_batches: int,
    device: str,
    on_stage: Callable[[str], None],
) -> None:
    """Measure time and memory of the training stages. The measured runs lack `labels` bytes of real pseudo-labels."""
    chosen = preflight.attempt(lambda: select_device(device))
    if chosen is None:
        return
    preflight.device, preflight.memory_available = str(chosen), available_bytes(chosen)
    on_cpu = chosen.type == "cpu"
    n_train = preflight.n_found(TRAIN_SPLIT)
    if not n_batches or (TRAIN_SPLIT in preflight.clips and n_train < settings.batch_size):
        return  # a batch that cannot be filled has been reported
    field = f"training.{preflight.dataset}.batch_size"
    try:
        profile = profile_stages(
            settings,
            variants,
            image_size=card.image_size,
            audio=card.audio,
            n_batches=n_batches,
            device=chosen,
            on_stage=on_stage,
        )
    except torch.OutOfMemoryError:
        available = human_bytes(preflight.memory_available)
        preflight.problems.append(
            f"{field}: a batch of {settings.batch_size} does not fit in the {available} of {chosen}; lower it"
        )
        return
    except SoundspotError as error:
        preflight.problems.append(f"test run of the training stages: {' '.join(str(error).split())}")
        return
    preflight.memory_needed = profile.peak_bytes + (labels if on_cpu else 0)  # pseudo-labels stay in host memory
    if preflight.memory_needed > preflight.memory_available:
        needed, available = human_bytes(preflight.memory_needed), human_bytes(preflight.memory_available)
        smaller = max(2, int(0.9 * preflight.memory_available / preflight.memory_needed * settings.batch_size))
        preflight.problems.append(
            f"{field}: a batch of {settings.batch_size} needs about {needed} on {chosen}, but only {available} are available; "
            f"lower it to about {smaller}, or use a machine with more memory"
        )
    preflight.times = stage_times(
        profile,
        preflight.clips,
        params=params,
        settings=settings,
        methods=variants,
        workers=available_cores() if on_cpu else 1,
    )
    if on_cpu and len(params.seeds) > 1:
        preflight.notes.append(
            "times are for training the seeds one after another; SOUNDSPOT_SEEDS_AT_ONCE trains them in parallel, which speeds up small models"
        )
