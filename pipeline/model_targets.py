"""From what a user names to a ``model.pt``, and to what a project keeps beside it.

```
PROJECT/runs/DATASET/VARIANT/model.pt       or VARIANT/seed_N/model.pt
PROJECT/data_manifests/DATASET/dataset.yaml
PROJECT/results/DATASET/VARIANT/metrics.json, baselines.json, maps/VARIANT/calibration.json
```
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from pipeline.calibration import CALIBRATION_FILE
from pipeline.config import load_params
from pipeline.errors import CheckpointError
from pipeline.runs import seed_folder

MODEL_FILE = "model.pt"


@dataclass(frozen=True)
class Home:
    """Where a model lies in a project; the files need not exist."""

    project: Path
    dataset: str
    variant: str
    seed_part: tuple[str, ...]  # ("seed_N",) of a further seed

    @property
    def manifest(self) -> Path:
        """Folder of the dataset's card and lists."""
        return self.project / "data_manifests" / self.dataset

    @property
    def metrics(self) -> Path:
        """Scores of the variant, over all its seeds."""
        return self.project / "results" / self.dataset / self.variant / "metrics.json"

    @property
    def baselines(self) -> Path:
        """Scores of the rows that know nothing of the clip."""
        return self.project / "results" / self.dataset / "baselines.json"

    @property
    def calibration(self) -> Path:
        """Names the weights that were evaluated."""
        maps = self.project / "results" / self.dataset / "maps"
        return maps.joinpath(self.variant, *self.seed_part, CALIBRATION_FILE)


def find_home(model: Path) -> Home | None:
    """Return where a ``model.pt`` lies in a project, by its path alone; None for one that lies elsewhere."""
    parts = model.absolute().parent.parts
    for i in reversed([i for i, part in enumerate(parts) if part == "runs"]):
        below = parts[i + 1 :]
        if len(below) == 2 or (len(below) == 3 and below[2].startswith("seed_")):
            return Home(Path(*parts[:i]), below[0], below[1], below[2:])
    return None


def resolve_model(word: str, *, dataset: str | None, seed: int | None, params_path: Path) -> Path:
    """Find the model of a path or of a variant.

    Parameters
    ----------
    word : str
        A ``model.pt``, or a run's folder, if it has a slash, ends in .pt or exists; else a variant's name in ``runs/DATASET``.
    dataset : str, optional
        Of the variant; by default the active one of the settings file.
    seed : int, optional
        By default the first.
    params_path : Path
        Read only for a variant.

    Raises
    ------
    CheckpointError
        There is no model; the message names what comes nearest.
    SettingsError
        The settings file cannot be read.
    """
    path = Path(word)
    if "/" in word or path.suffix == ".pt" or path.is_file() or (path / MODEL_FILE).is_file():
        return _model_at(path, seed)
    params = load_params(params_path)
    runs = Path("runs") / (dataset or params.dataset)
    if not (runs / word / MODEL_FILE).is_file():
        there = sorted(each.parent.name for each in runs.glob(f"*/{MODEL_FILE}"))
        near = difflib.get_close_matches(word, there, n=3) or there
        hint = f"there are models of {', '.join(near)}" if near else "train first: dvc repro train"
        raise CheckpointError(f"{runs / word / MODEL_FILE}: no such model; {hint}")
    if seed is not None and seed not in params.seeds:
        raise CheckpointError(
            f"seed {seed} is not among the seeds of {params_path}: {', '.join(map(str, params.seeds))}"
        )
    return _model_at(runs / word if seed is None else seed_folder(runs / word, params.seeds, seed), None)


def _model_at(path: Path, seed: int | None) -> Path:
    if seed is not None:
        path = (path.parent if path.is_file() else path) / f"seed_{seed}"
    model = path / MODEL_FILE if path.is_dir() else path
    if not model.is_file():
        hint = "the first seed of a run has no folder of its own, leave --seed out; else " if seed is not None else ""
        raise CheckpointError(
            f"{model}: no such model; {hint}give a model.pt, a run's folder, or the name of a variant that has been trained"
        )
    return model
