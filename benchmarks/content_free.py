"""How much the protocol alone changes a score: the table of docs/protocols.md, from published boxes, without frames or audio.

    python benchmarks/content_free.py --boxes Annotations --test flickr_test.csv [--output table.md]

The arguments are those of `soundspot import soundnet-flickr`. Every box of a frame counts as another annotator's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.common.files import write_text
from pipeline.common.text_table import Table
from pipeline.datasets.importers.flickr_boxes import FLICKR_ID, fractional_boxes, read_raw_boxes
from pipeline.datasets.importers.report import ImportReport, listed_ids
from pipeline.scoring.baselines import BASELINE_LABELS, content_free_maps
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.score import score_all, summarize

PROTOCOLS = (
    "paper256",
    "mssl256-calmetric",
    "lvs224-median",
    "ezvsl224-median",
    "sspl224",
    "sslalignment224-adaptive",
    "vggss224",
)


def table_of(boxes: Path, test: Path) -> Table:
    """Return success rate / AUC in percent: a line per content-free map, a column per protocol."""
    report = ImportReport("soundnet_flickr")
    by_clip = fractional_boxes(read_raw_boxes(boxes), report, boxes)
    ids = [clip_id for clip_id in listed_ids(test, "the test list", report, pattern=FLICKR_ID) if by_clip.get(clip_id)]
    truth = [box for clip_id in ids for box in by_clip[clip_id]]
    others = [clip_id for clip_id in by_clip if clip_id not in set(ids) and by_clip[clip_id]]
    elsewhere = [box for clip_id in others for box in by_clip[clip_id]]
    print(f"test frames: {len(ids)}; others: {len(others)}")
    protocols = [get_protocol(name) for name in PROTOCOLS]
    rows = []
    for name, maps in content_free_maps(ids, prior_boxes=elsewhere).items():
        scores = score_all(maps, ids, truth, protocols)
        metrics = [summarize(scores[protocol], resamples=1) for protocol in PROTOCOLS]
        cells = (f"{100 * found['success_rate']:.1f} / {100 * found['auc']:.1f}" for found in metrics)
        rows.append((BASELINE_LABELS[name], *cells))
    return Table(("", *(f"`{name}`" for name in PROTOCOLS)), tuple(rows))


def main(words: Sequence[str] | None = None) -> None:
    """Print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--boxes", type=Path, required=True, help="folder of XML files, or boxes as .json or .pkl")
    parser.add_argument("--test", type=Path, required=True, help="ids of the test frames")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    given = parser.parse_args(words)
    text = table_of(given.boxes, given.test).markdown()
    print(text)
    if given.output:
        write_text(given.output, text)


if __name__ == "__main__":
    main()
