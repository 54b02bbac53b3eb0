"""Figures of clips: scored clips with the maps of several methods (Figures 4 and 5), training clips over the epochs (Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.common.files import write_csv
from pipeline.common.seeding import evenly_spaced
from pipeline.evaluation.labels import label_of
from pipeline.figures.style import save
from pipeline.manifests.boxes import read_split_boxes
from pipeline.report.examples import maps_over_epochs, overlays, ranked_clips, read_epoch_maps
from pipeline.report.section import Section
from pipeline.report.source import ABLATION, COMPARED, Source, read_scored, write_npz
from pipeline.scoring.protocols import get_protocol

EXAMPLES = 6  # scored clips with their maps
EPOCH_EXAMPLES = 3  # training clips with their maps over the epochs


def methods_section(source: Source) -> Section:
    """Draw scored clips with the map of each system of Table 1 (Figure 4)."""
    return _examples_section(source, COMPARED, title="Response maps by system (Figure 4)", stem="figure4_methods")


def ablation_section(source: Source) -> Section:
    """Draw scored clips with the map of each row of the ablation (Figure 5)."""
    return _examples_section(source, ABLATION, title="Response maps, ablation (Figure 5)", stem="figure5_ablation")


def _examples_section(source: Source, names: Sequence[str], *, title: str, stem: str) -> Section:
    trained = [name for name in names if name in source.variants]
    if not trained:
        text = f"No figure: none of {', '.join(f'`{name}`' for name in names)} is among the `variants`."
        return Section(title, text, kind="maps")
    methods = [read_scored(source, name) for name in trained]
    # Ranked by the first one, `iterative` if it was trained, so that both figures show the same clips.
    clip_ids = ranked_clips(methods[0].ciou, EXAMPLES)
    protocol = get_protocol(source.card.evaluation.protocol)
    boxes = read_split_boxes(source.manifest, source.split)
    figure = overlays(
        clip_ids, methods, source.scored_shards, boxes, protocol, threshold=source.card.evaluation.threshold
    )
    save(figure, source.folder / f"{stem}.png")
    header = ["clip_id", *(f"ciou_{method.name}" for method in methods)]
    rows = [[clip_id, *(method.ciou[clip_id] for method in methods)] for clip_id in clip_ids]
    write_csv(source.folder / f"{stem}.csv", header, rows)
    places = [source.scored_shards.clip_ids.index(clip_id) for clip_id in clip_ids]
    maps = {method.name: method.maps.response[places] for method in methods}
    write_npz(source.folder / f"{stem}.npz", clip_id=np.array(clip_ids), **maps)
    text = (
        f"Frames and response maps (seed {source.seed}) of {len(clip_ids)} clips, evenly spaced in the ranking by the cIoU of "
        f"“{label_of(trained[0])}” from best to worst. White boxes mark sounding objects, dashed boxes silent ones; the blue "
        "line outlines the sounding region under the protocol."
    )
    missing = [name for name in names if name not in trained]
    if missing:
        text += f" Not trained (missing from `variants`): {', '.join(f'`{name}`' for name in missing)}."
    return Section(title, text, f"{stem}.png", (f"{stem}.csv", f"{stem}.npz"), kind="maps")


def epochs_section(source: Source) -> Section:
    """Draw training clips with their maps over the epochs (Figure 6)."""
    stem = "figure6_epochs"
    # Skip both ends of the list, where importers and generators tend to put special cases.
    places = evenly_spaced(len(source.train_shards), EPOCH_EXAMPLES + 2)[1:-1] or [0]
    clip_ids = [source.train_shards.clip_ids[place] for place in places]
    maps = read_epoch_maps({name: source.runs / name for name in source.shown_over_epochs}, clip_ids)
    protocol = get_protocol(source.card.evaluation.protocol)
    save(maps_over_epochs(maps, source.train_shards, protocol), source.folder / f"{stem}.png")
    write_npz(
        source.folder / f"{stem}.npz",
        method=np.array(maps.names),
        clip_id=np.array(maps.clip_ids),
        epoch=np.array(maps.epochs),
        delta_v=maps.delta_v,
        response=maps.response,
    )
    text = (
        f"Response maps (seed {source.seed}) of {len(clip_ids)} training clips, evenly spaced in the clip list, after each "
        "epoch. Epoch 0 is the shared initialization. The maps are the pseudo-labels; the blue line outlines the cells of the "
        "sounding region (Eq. 2) that the next epoch trains on."
    )
    return Section("Response maps by epoch (Figure 6)", text, f"{stem}.png", (f"{stem}.npz",), kind="epochs")
