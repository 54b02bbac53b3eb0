"""The part of a dry run that looks at the other datasets on which the trained models are scored (`cross_datasets`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.apps.preflight.datasets import check_lists, check_media
from pipeline.apps.preflight.file_sizes import maps_bytes, split_bytes
from pipeline.apps.preflight.findings import DryRun, Output
from pipeline.common.config import Card, Params, load_card
from pipeline.common.project import CARD_FILE, MAPS_FOLDER, manifest_folder, results_folder, shards_folder
from pipeline.evaluation.evaluate import read_split_boxes, trained_on_too
from pipeline.manifests.clips import Clip
from pipeline.manifests.prepared import resolve_media_root


def check_cross_dataset(
    run: DryRun,
    project: Path,
    params: Params,
    card: Card,
    other: str,
    *,
    train: Sequence[Clip],
    variants: Sequence[str],
    side: int,
) -> None:
    """Check card, lists, boxes, media and overlap of one other dataset, and list what will be written.

    Parameters
    ----------
    run : DryRun
        Gets clips, problems, notes and outputs.
    project : Path
    params : Params
    card : Card
        Of the dataset that the models learn from.
    other : str
    train : sequence of Clip
        That the models learn from.
    variants : sequence of str
    side : int
        Of a response map, cells.
    """
    manifest, split = manifest_folder(project, other), params.score_split
    cards: list[Card] = []
    if not run.holds(lambda: cards.append(load_card(manifest))):
        return
    (theirs,) = cards
    for name in ("image_size", "audio"):
        if getattr(theirs, name) != getattr(card, name):
            run.problems.append(
                f"{manifest / CARD_FILE}: its {name} is not that of {run.dataset}, whose models would be scored on clips of "
                "another kind than they learned from; copy it"
            )
    splits = check_lists(run, manifest, theirs, needed=(split,))
    if split not in splits:
        return
    run.holds(lambda: read_split_boxes(manifest, split))
    if not theirs.leaks_allowed:
        run.holds(
            lambda: trained_on_too([clip.clip_id for clip in splits[split]], train, where=f"{manifest / split}.csv")
        )
    there = check_media(run, splits, theirs, dataset=other, root=resolve_media_root(theirs, project, other))[split]
    id_bytes = max((len(clip.clip_id) for clip in there), default=0)
    per_shard, shape = params.extract.clips_per_shard, (card.audio.n_mels, card.audio.n_frames)
    size = split_bytes(len(there), clips_per_shard=per_shard, image_size=card.image_size, log_mel_shape=shape)
    run.outputs.append(Output("shards", str(shards_folder(Path(), other, split)), -(-len(there) // per_shard), size))
    maps = maps_bytes(len(there), side=side, id_bytes=id_bytes)
    for name in variants:
        folder = str(results_folder(Path(), run.dataset, scored_on=other) / MAPS_FOLDER / name)
        run.outputs.append(Output("maps", folder, len(params.seeds), len(params.seeds) * maps))
