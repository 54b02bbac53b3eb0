"""Errors that a user can meet. A message says what is wrong, which value, which file or clip, and what to do.

All derive from :class:`SoundspotError`, so that a command prints one line and exits 1 for any of them; whatever else
is raised is a fault of the program and keeps its traceback.
"""


class SoundspotError(Exception):
    """Base class of every error that a user's input or surroundings can cause."""


class SettingsError(SoundspotError):
    """A setting in params.yaml or in a dataset card is unknown, mistyped, or out of range."""


class ManifestError(SoundspotError):
    """A clip list or box file is malformed, inconsistent, or leaks between splits."""


class MediaError(SoundspotError):
    """One clip's media cannot be used. Extraction records it in rejects.csv and goes on."""


class RenderError(SoundspotError):
    """A dataset's media cannot be rendered: the disk is full, a folder is not writable, or a file's ending is unknown."""


class ExtractionError(SoundspotError):
    """A whole split cannot be extracted: too many clips are unusable, or the disk is full."""


class ShardError(SoundspotError):
    """A shard is missing, damaged, of another format version, or does not belong to its set."""


class PseudoLabelError(SoundspotError):
    """A pseudo-label artifact is missing, damaged, or does not belong to the shards or the model."""


class CheckpointError(SoundspotError):
    """A checkpoint or a file of pretrained weights is missing, damaged, or does not fit the model."""


class TrainingError(SoundspotError):
    """Training cannot go on: the loss is not finite, a run is locked by another process, a batch is impossible."""


class EvaluationError(SoundspotError):
    """Scores cannot be computed: no boxes, unknown protocol, maps and boxes that do not belong together."""


class LocalizationError(SoundspotError):
    """One's own media cannot be localized as asked: two would get the same output, or another process is writing there."""


class ExportError(SoundspotError):
    """A model cannot be exported: a package is missing, the output is refused, or what was exported gives other maps."""


class ClusterError(SoundspotError):
    """The Dask scheduler cannot be reached, or a worker process died. `task` is the index of the task, if any."""

    def __init__(self, message: str, *, task: int | None = None) -> None:
        super().__init__(message)
        self.task = task
