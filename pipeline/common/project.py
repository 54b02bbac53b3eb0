"""The paths of a project: every file and folder name that more than one module uses.

```
PROJECT/params.yaml
PROJECT/data_manifests/DATASET/      dataset.yaml  SPLIT.csv  SPLIT_boxes.csv
PROJECT/data/DATASET/                clips.csv  shards/SPLIT/shard-00000.h5 …  features/SPLIT/features-00000.h5 …
PROJECT/runs/DATASET/VARIANT/        the run folder of the first seed:
                                     model.pt  state.pt  history.csv  timings.csv
                                     pseudo_labels/epoch_000.h5  start_001.h5 …  weights/epoch_000.pt …
                      …/seed_N/      the same for each further seed
PROJECT/results/DATASET/             baselines.json
                      …/VARIANT/     scores.json  metrics.json  scores.csv  success_curve.csv
                      …/maps/VARIANT/          maps.h5  calibration.json  (further seeds: …/seed_N/)
                      …/on/OTHER/    the same layout, scored on the dataset OTHER
PROJECT/live/                        logs of training: metrics/DATASET/VARIANT.json  runs/DATASET/VARIANT/plots/  tensorboard/…
PROJECT/search/DATASET/ROW/          the trials of `soundspot search`; the table of all is docs/search/DATASET.csv
```
Most functions take a folder and not the project, because a stage gets its folders as options.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PARAMS_FILE = "params.yaml"
MANIFESTS_FOLDER, DATA_FOLDER, RUNS_FOLDER, RESULTS_FOLDER = "data_manifests", "data", "runs", "results"
SEARCH_FOLDER, LIVE_FOLDER = "search", "live"
CARD_FILE = "dataset.yaml"
CLIPS_FILE = "clips.csv"
SHARD_PATTERN, FEATURES_PATTERN = "shard-*.h5", "features-*.h5"
INITIAL_RUN = "initialize"  # the run that the variants start from

MODEL_FILE, STATE_FILE, HISTORY_FILE, TIMINGS_FILE = "model.pt", "state.pt", "history.csv", "timings.csv"
RECORD_FILE = ".record.json"  # see `pipeline.common.record`
FINISHED_FILE = ".finished"  # finished shards or features, with their stamps; DVC ignores it
LABELS_FOLDER, WEIGHTS_FOLDER = "pseudo_labels", "weights"
LABELS_PATTERN, START_PATTERN, WEIGHTS_PATTERN = "epoch_*.h5", "start_*.h5", "epoch_*.pt"
SEED_PATTERN = "seed_*"

MAPS_FOLDER = "maps"
MAPS_FILE, CALIBRATION_FILE = "maps.h5", "calibration.json"
METRICS_FILE, SCORES_FILE, CLIP_SCORES_FILE = "metrics.json", "scores.json", "scores.csv"
BASELINES_FILE, SUCCESS_CURVE_FILE = "baselines.json", "success_curve.csv"

# The outputs of stages that have several, with a group for each part of the stage's name.
_OUTPUTS = {
    "extract": rf"{DATA_FOLDER}/([^/]+)/shards/([^/]+)",
    "features": rf"{DATA_FOLDER}/([^/]+)/features/([^/]+)",
    "train": rf"{RUNS_FOLDER}/([^/]+)/([^/]+?)(?:/seed_\d+)?",
    "evaluate": rf"{RESULTS_FOLDER}/([^/]+)/(?:{MAPS_FOLDER}/)?([^/]+)",
    "evaluate_cross": rf"{RESULTS_FOLDER}/([^/]+)/on/([^/]+)/(?:{MAPS_FOLDER}/)?([^/]+)",
}


def manifest_folder(project: Path, dataset: str) -> Path:
    """Folder of a dataset's card, clip lists and boxes."""
    return project / MANIFESTS_FOLDER / dataset


def shards_folder(project: Path, dataset: str, split: str) -> Path:
    """Folder of the shards of one split."""
    return project / DATA_FOLDER / dataset / "shards" / split


def shard_path(folder: Path, index: int) -> Path:
    """Path of shard number `index`, from 0, in a split's folder of shards."""
    return folder / f"shard-{index:05d}.h5"


def features_folder(project: Path, dataset: str, split: str) -> Path:
    """Folder of the stored features of one split; without files if the visual backbone is trained."""
    return project / DATA_FOLDER / dataset / "features" / split


def features_path(folder: Path, shard: int) -> Path:
    """Path of the features of shard number `shard`, from 0, in a split's folder of features."""
    return folder / f"features-{shard:05d}.h5"


def runs_folder(project: Path, dataset: str) -> Path:
    """Folder of all training runs on a dataset."""
    return project / RUNS_FOLDER / dataset


def results_folder(project: Path, dataset: str, *, scored_on: str | None = None) -> Path:
    """Folder of the scores of models trained on `dataset`; `scored_on` names the scored dataset if it is another one."""
    folder = project / RESULTS_FOLDER / dataset
    return folder / "on" / scored_on if scored_on else folder


def stage_name(stage: str, folder: Path) -> str:
    """Return the name in dvc.yaml of the stage that writes a folder, such as ``train@demo-iterative`` for ``runs/demo/iterative``.

    Parameters
    ----------
    stage : str
        "extract", "features", "train" or "evaluate".
    folder : Path
        Its output. Outside the layout above, the name is `stage`, which in DVC means all stages of this kind.
    """
    for name, output in _OUTPUTS.items():
        if name.startswith(stage) and (match := re.fullmatch(f"(?:.*/)?{output}", folder.as_posix())):
            return f"{name}@{'-'.join(match.groups())}"
    return stage


def seed_name(seed: int) -> str:
    """Name of the folder of a seed other than the first."""
    return f"seed_{seed}"


def seed_folder(folder: Path, seeds: Sequence[int], seed: int) -> Path:
    """Folder of one seed of a run: `folder` itself for the first seed, ``seed_<seed>`` inside it for each further one."""
    return folder if seed == seeds[0] else folder / seed_name(seed)


def is_seed_folder(folder: Path) -> bool:
    """Whether a folder is that of a further seed, by its name."""
    return re.fullmatch(r"seed_\d+", folder.name) is not None


def labels_path(run: Path, epoch: int) -> Path:
    """Path of the pseudo-labels of one epoch in a run folder; epoch 0 is the initialization."""
    return run / LABELS_FOLDER / f"epoch_{epoch:03d}.h5"


def start_path(run: Path, epoch: int) -> Path:
    """Path of what the method computed from the training set before `epoch`, such as clusters."""
    return run / LABELS_FOLDER / f"start_{epoch:03d}.h5"


def weights_path(run: Path, epoch: int) -> Path:
    """Path of the intermediate checkpoint of one epoch in a run folder."""
    return run / WEIGHTS_FOLDER / f"epoch_{epoch:03d}.pt"


@dataclass(frozen=True)
class ProjectPaths:
    """Paths that belong to one trained model of a project; the files need not exist."""

    project: Path
    dataset: str
    variant: str
    seed_part: tuple[str, ...] = ()  # ("seed_N",) for a further seed

    @property
    def manifest(self) -> Path:
        """Folder of the dataset's card and lists."""
        return manifest_folder(self.project, self.dataset)

    @property
    def results(self) -> Path:
        """Folder of all scores on the dataset."""
        return results_folder(self.project, self.dataset)

    @property
    def scores(self) -> Path:
        """Scores of the variant, over all its seeds."""
        return self.results / self.variant / SCORES_FILE

    @property
    def live(self) -> Path:
        """Folder of the logs of all training runs."""
        return self.project / LIVE_FOLDER

    @property
    def baselines(self) -> Path:
        """Scores of the content-free baselines."""
        return self.results / BASELINES_FILE

    @property
    def calibration(self) -> Path:
        """Calibration of this seed's model."""
        return (self.results / MAPS_FOLDER).joinpath(self.variant, *self.seed_part, CALIBRATION_FILE)


def locate(model: Path) -> ProjectPaths | None:
    """Return the project paths of a ``model.pt``, derived from its path alone; None if it is not in a ``runs`` folder."""
    parts = model.absolute().parent.parts
    # The innermost ``runs`` counts: the project itself may be inside a folder of that name.
    for i in reversed([i for i, part in enumerate(parts) if part == RUNS_FOLDER]):
        below = parts[i + 1 :]
        if len(below) == 2 or (len(below) == 3 and is_seed_folder(model.absolute().parent)):
            return ProjectPaths(Path(*parts[:i]), below[0], below[1], below[2:])
    return None


@dataclass(frozen=True)
class VariantRun:
    """The run folder of a variant, as found by `find_variant`.

    Attributes
    ----------
    folder : Path
        Relative to the project; it need not exist.
    exists : bool
        Whether it holds the file or folder that was looked for.
    available : sequence of str
        All variants that hold it, for error messages.
    seeds : sequence of int
        As given to `find_variant`.
    """

    folder: Path
    exists: bool
    available: Sequence[str]
    seeds: Sequence[int]

    def folder_of_seed(self, seed: int | None) -> Path | None:
        """Return the folder of a seed (None: the first), or None if the run has no such seed."""
        if seed is None:
            return self.folder
        # The settings may have changed since training, so an existing folder of that name wins.
        own = self.folder / seed_name(seed)
        if own.is_dir():
            return own
        return seed_folder(self.folder, self.seeds, seed) if seed in self.seeds else None


def find_variant(variant: str, *, dataset: str, seeds: Sequence[int], holding: str) -> VariantRun:
    """Look for a variant's run folder in ``runs/DATASET`` of the current directory.

    Parameters
    ----------
    variant, dataset : str
    seeds : sequence of int
        Seeds of the settings file; the first one has the run folder itself.
    holding : str
        The file or folder that a run folder must contain to count.
    """
    runs = runs_folder(Path(), dataset)
    available = sorted(each.parent.name for each in runs.glob(f"*/{holding}"))
    return VariantRun(runs / variant, (runs / variant / holding).exists(), available, seeds)
