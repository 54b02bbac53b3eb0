"""The report's pictures of clips: scored ones with every method's map, and training ones over the epochs."""

from __future__ import annotations

import numpy as np

from pipeline.evaluation import read_split_boxes
from pipeline.examples import maps_over_epochs, overlays, ranked_clips, read_epoch_maps, spread
from pipeline.figures import save
from pipeline.files import write_csv
from pipeline.protocols import get_protocol
from pipeline.report_parts import Section, Source, read_scored, write_npz
from pipeline.tables import label_of

EXAMPLES = 8  # scored clips with their maps
EPOCH_EXAMPLES = 3  # training clips with their maps over the epochs


def examples_section(source: Source) -> Section:
    """Draw some scored clips with the map of each method."""
    methods = [read_scored(source, name) for name in source.variants]
    clip_ids = ranked_clips(methods[0].ciou, EXAMPLES)
    protocol = get_protocol(source.card.evaluation.protocol)
    boxes = read_split_boxes(source.manifest, source.split)
    save(overlays(clip_ids, methods, source.scored_shards, boxes, protocol), source.folder / "overlays.png")
    header = ["clip_id", *(f"ciou_{method.name}" for method in methods)]
    rows = [[clip_id, *(method.ciou[clip_id] for method in methods)] for clip_id in clip_ids]
    write_csv(source.folder / "overlays.csv", header, rows)
    places = [source.scored_shards.clip_ids.index(clip_id) for clip_id in clip_ids]
    maps = {method.name: method.maps.response[places] for method in methods}
    write_npz(source.folder / "overlays.npz", clip_id=np.array(clip_ids), **maps)
    text = (
        f"Frames and response maps (of seed {source.seed}) of {len(clip_ids)} clips at equal steps through the ranking "
        f"by the cIoU of “{label_of(methods[0].name)}”, its best clip first and its worst last. White boxes are "
        "sounding objects, dashed ones silent; the blue line surrounds what the protocol takes for the sounding region."
    )
    return Section("Example clips", text, "overlays.png", ("overlays.csv", "overlays.npz"))


def epochs_section(source: Source) -> Section:
    """Draw some training clips with their maps over the epochs (Figure 6)."""
    compared = [name for name in ("iterative", "initial") if name in source.variants] or [source.variants[-1]]
    # The ends of the list are left out: importers and generators tend to put special cases there.
    places = spread(len(source.train_shards), EPOCH_EXAMPLES + 2)[1:-1] or [0]
    clip_ids = [source.train_shards.clip_ids[place] for place in places]
    maps = read_epoch_maps({name: source.runs / name for name in compared}, clip_ids)
    protocol = get_protocol(source.card.evaluation.protocol)
    save(maps_over_epochs(maps, source.train_shards, protocol), source.folder / "epochs.png")
    write_npz(
        source.folder / "epochs.npz",
        method=np.array(maps.names),
        clip_id=np.array(maps.clip_ids),
        epoch=np.array(maps.epochs),
        delta_v=maps.delta_v,
        response=maps.response,
    )
    text = (
        f"Response maps (of seed {source.seed}) of {len(clip_ids)} training clips, at equal steps through the clip "
        "list, after each epoch (Figure 6 of the paper). Epoch 0 is the common initialisation. The maps are those of "
        "the pseudo-label artifacts; the blue line surrounds the sounding region (Eq. 2) that the next epoch learns "
        "from."
    )
    return Section("Maps over the epochs", text, "epochs.png", ("epochs.npz",))
