"""Where a run lies in a project, from the name of its variant or from the path of its model.

```
PROJECT/runs/DATASET/VARIANT/model.pt       or VARIANT/seed_N/model.pt
PROJECT/data_manifests/DATASET/dataset.yaml
PROJECT/results/DATASET/VARIANT/metrics.json, baselines.json, maps/VARIANT/calibration.json
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.config import load_params
from pipeline.training.run_folder import seed_folder

CALIBRATION_FILE = "calibration.json"


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
        """Of the weights that it names: those that were evaluated or, without boxes, calibrated."""
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


@dataclass(frozen=True)
class FoundRun:
    """What the name of a variant leads to.

    Attributes
    ----------
    folder : Path
        Of the variant, relative to the project; it need not exist.
    is_there : bool
        Whether it holds what was looked for.
    others : sequence of str
        All variants that hold it; for the message where this one does not.
    seeds : sequence of int
        Of the settings file.
    """

    folder: Path
    is_there: bool
    others: Sequence[str]
    seeds: Sequence[int]

    def of_seed(self, seed: int | None) -> Path | None:
        """Return the folder of a seed, by default the first; None where it has none.

        The run may have been trained with other seeds than the settings file has now: a folder of the seed's name is the seed's.
        """
        if seed is None:
            return self.folder
        own = self.folder / f"seed_{seed}"
        if own.is_dir():
            return own
        return seed_folder(self.folder, self.seeds, seed) if seed in self.seeds else None


def find_run(variant: str, *, dataset: str | None, params_path: Path, holding: str) -> FoundRun:
    """Look for a variant's run in ``runs/DATASET`` of the present folder.

    Parameters
    ----------
    variant : str
    dataset : str, optional
        By default the active one of the settings file.
    params_path : Path
    holding : str
        Name of the file or folder without which a run is none.

    Raises
    ------
    SettingsError
        The settings file cannot be read.
    """
    params = load_params(params_path)
    runs = Path("runs") / (dataset or params.dataset)
    there = sorted(each.parent.name for each in runs.glob(f"*/{holding}"))
    return FoundRun(runs / variant, (runs / variant / holding).exists(), there, params.seeds)
