"""`soundspot tag`: write class labels of a split with pretrained classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import PATH, params_option
from pipeline.common.console import echo, note
from pipeline.common.text_table import counted

if TYPE_CHECKING:
    from pipeline.apps.tag.run import Tagged


@click.command()
@click.option("--frames", "classifier", metavar="timm:NAME", help="Frame classifier: any timm model.")
@click.option(
    "--weights",
    default="timm",
    show_default=True,
    help="Its weights: a file, pip:PACKAGE, or timm, which downloads them.",
)
@click.option("--frame-labels", type=PATH, help="Names of its classes. Default: those of ImageNet.")
@click.option(
    "--tiles", type=click.IntRange(1, 16), default=1, show_default=True, help="Classify N × N parts of each frame."
)
@click.option(
    "--sounds",
    "tagger",
    type=PATH,
    metavar="FILE",
    help="Audio tagger: an .onnx or .tflite file that takes a waveform.",
)
@click.option("--sound-labels", type=PATH, help="Names of its tags, such as AudioSet's class_labels_indices.csv.")
@click.option("--sample-rate", type=click.IntRange(min=1), help="Its sample rate in Hz. Default: the one in the file.")
@click.option("--sound-logits", is_flag=True, help="Its outputs are logits, not probabilities.")
@click.option(
    "--groups", type=PATH, help="Table with the columns side, class, group. Default: each class is a group of its own."
)
@click.option("--split", default="train", show_default=True, help="The split to label.")
@click.option("-o", "--output", required=True, type=PATH, help="The label file (.csv); its record is OUTPUT.json.")
@click.option("--overwrite", is_flag=True, help="Replace an existing label file.")
@click.option(
    "--workers", type=click.IntRange(min=1), envvar="SOUNDSPOT_WORKERS", help="Processes. Default: one per core."
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="SOUNDSPOT_DEVICE",
    help="Device of the frame classifier: auto, cpu, cuda or cuda:N.",
)
@click.option("--dataset", help="Name of the dataset. Default: the active one of the settings file.")
@params_option
def tag(
    classifier: str | None,
    weights: str,
    frame_labels: Path | None,
    tiles: int,
    tagger: Path | None,
    sound_labels: Path | None,
    sample_rate: int | None,
    sound_logits: bool,
    groups: Path | None,
    split: str,
    output: Path,
    overwrite: bool,
    workers: int | None,
    device: str,
    dataset: str | None,
    params_path: Path,
) -> None:
    """Label the clips of a split with pretrained classifiers, for methods that need class labels (MSSL).

    Frames come from the shards, audio from the media. With both classifiers, the file has a target for each; they must then be mapped
    to the same classes with --groups. Set `label_file` of the methods in params.yaml to the output. An interrupted run resumes.

    \b
    Example:
      soundspot tag --frames timm:resnet18 --groups data_manifests/mosaic_groups.csv -o data/real/labels.csv
      soundspot tag --sounds yamnet.tflite --sound-labels yamnet_class_map.csv --sample-rate 16000 -o data/real/heard.csv
    """
    from pipeline.apps.tag.frames import FrameModel
    from pipeline.apps.tag.run import Split
    from pipeline.apps.tag.run import tag as run
    from pipeline.apps.tag.sounds import SoundModel
    from pipeline.common.config import load_params
    from pipeline.model.devices import select_device

    if classifier is None and tagger is None:
        raise click.UsageError("pass --frames, --sounds, or both")
    if tagger is not None and sound_labels is None:
        raise click.UsageError("--sounds requires --sound-labels")
    params = load_params(params_path)
    frames = FrameModel(classifier, weights, frame_labels, tiles, str(select_device(device))) if classifier else None
    sounds = SoundModel(tagger, sound_labels, sample_rate, sound_logits) if tagger and sound_labels else None
    tagged = run(
        Split(
            Path(),
            dataset or params.dataset,
            split,
            clip_time_limit_s=params.extract.clip_time_limit_s,
            max_reject_fraction=params.extract.max_reject_fraction,
        ),
        output,
        frames=frames,
        sounds=sounds,
        groups=groups,
        overwrite=overwrite,
        workers=workers,
    )
    _show(tagged, output)


def _show(tagged: Tagged, output: Path) -> None:
    from pipeline.common.text_table import Table

    rows = [
        (name, *(str(tagged.present[side][number]) for side in tagged.sides))
        for number, name in enumerate(tagged.groups)
    ]
    shown = [row for row in rows if any(count != "0" for count in row[1:])]
    if shown:
        echo(Table(("clips with p > 0.5", *tagged.sides), tuple(shown)).text(), nl=False)
    if len(shown) < len(rows):
        note(f"in no clip: {len(rows) - len(shown)} of {len(rows)} classes")
    for clip_id, reason in list(tagged.rejected.items())[:3]:
        note(f"clip {clip_id}: audio not tagged: {reason}")
    if tagged.rejected:
        note(f"only the label of their frame: {counted(len(tagged.rejected), 'clip')}; OUTPUT.json lists them")
    what = f"{counted(tagged.n_clips, 'clip')}, {len(tagged.groups)} classes"
    echo(f"{output}: unchanged, checksum verified, kept ({what})" if tagged.kept else f"wrote {output} ({what})")
