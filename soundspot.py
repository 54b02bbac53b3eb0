"""soundspot's public API: everything that documentation and notebooks import.

    from soundspot import Localizer, PseudoLabels, ShardSet, load_model, protocols, read_boxes, score

    shards = ShardSet.open("data/demo/shards/test")                     # what was extracted from the videos
    frames, log_mel = shards.read([0, 1, 2])                            # uint8 (clip, row, col, channel), float32 (clip, mel, time)
    model = load_model("runs/demo/iterative/model.pt")                  # encoders, method, description
    maps = model.response_maps(shards, batch_size=64)                   # raw maps of Eq. 1, float32 (clip, row, col)
    boxes = read_boxes("data_manifests/demo/test_boxes.csv")
    scores = score(maps, shards.clip_ids, boxes, protocols["paper256"])  # cIoU, IoU and pointing of every clip
    labels = PseudoLabels.open("runs/demo/iterative/pseudo_labels/epoch_003.h5")  # what epoch 4 learned from
    localizer = Localizer.load("runs/demo/iterative/model.pt")          # for images and audio of any size and sample rate

Stages are run by DVC (`dvc repro`), everything else by the command `soundspot`. The code is in the packages `pipeline` and `stages`.
"""

from pipeline.apps.localize.localizer import Localization, Localizer
from pipeline.common.config import IterationSettings
from pipeline.common.errors import SoundspotError
from pipeline.figures.heatmap import overlay
from pipeline.manifests import Box, Clip, read_boxes, read_clips, write_boxes, write_clips
from pipeline.methods.base import Batch, Method
from pipeline.methods.trained_model import TrainedModel
from pipeline.model import equations
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.inference import localize_by_response
from pipeline.pseudo_labels import PseudoLabels
from pipeline.scoring.baselines import content_free_maps
from pipeline.scoring.protocols import PROTOCOLS, ScoringProtocol
from pipeline.scoring.results import Scores
from pipeline.scoring.score import score
from pipeline.shards import ShardSet
from pipeline.training.checkpoints import load_model

protocols = PROTOCOLS  # name → rule; "paper256" is the paper's

__all__ = [
    "AudioVisualModel",
    "Batch",
    "Box",
    "Clip",
    "IterationSettings",
    "Localization",
    "Localizer",
    "Method",
    "PseudoLabels",
    "Scores",
    "ScoringProtocol",
    "ShardSet",
    "SoundspotError",
    "TrainedModel",
    "content_free_maps",
    "equations",
    "load_model",
    "localize_by_response",
    "overlay",
    "protocols",
    "read_boxes",
    "read_clips",
    "score",
    "write_boxes",
    "write_clips",
]
