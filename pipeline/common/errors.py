"""Errors caused by user input or by the environment. A message names the problem, the value, the file or clip, and the fix.

All derive from :class:`SoundspotError`: a command prints one line for it and exits with 1. Any other exception is a bug and
keeps its traceback.
"""


class SoundspotError(Exception):
    """Base class of all errors that user input or the environment can cause.

    Attributes
    ----------
    errno : int or None
        Number of the system's error that caused this one, if there was one.
    """

    errno: int | None = None


class AccessError(SoundspotError):
    """The system cannot open or read a file: open-file limit, permissions, disk or network. Its content may be intact."""


class SettingsError(SoundspotError):
    """A setting in params.yaml or in a dataset card is unknown, of the wrong type, or out of range."""


class PackageError(SoundspotError):
    """A package that a setting requires is not installed, or cannot be imported."""


class ManifestError(SoundspotError):
    """A clip list or box file is malformed or inconsistent, or splits share clips."""


class MediaError(SoundspotError):
    """The media of one clip cannot be used. Extraction records the clip in rejects.csv and continues."""


class RenderError(SoundspotError):
    """The media of a dataset cannot be rendered: disk full, folder not writable, or unknown file extension."""


class ExtractionError(SoundspotError):
    """A split cannot be extracted: too many unusable clips, or disk full."""


class ShardError(SoundspotError):
    """A shard is missing, damaged, of another format version, or does not match the other shards of its split."""


class FeatureError(SoundspotError):
    """A file of stored features is missing, damaged, or does not match the shards, the settings or the model."""


class PseudoLabelError(SoundspotError):
    """A pseudo-label file is missing, damaged, or does not match the shards or the model."""


class CheckpointError(SoundspotError):
    """A checkpoint or a file of pretrained weights is missing, damaged, or does not match the model."""


class TrainingError(SoundspotError):
    """Training cannot continue: non-finite loss, run locked by another process, or batch larger than the training set."""


class DivergenceError(TrainingError):
    """The loss or the responses of a model are not finite; other settings may avoid this."""


class SearchError(SoundspotError):
    """Settings cannot be searched, or trials cannot be compared: other settings or data, or unequal numbers of trials."""


class EvaluationError(SoundspotError):
    """Scores cannot be computed: no boxes, unknown protocol, or maps and boxes that do not match."""


class LocalizationError(SoundspotError):
    """Media cannot be localized as requested: two inputs have the same output path, or another process writes there."""


class TaggingError(SoundspotError):
    """Clips cannot be labeled by pretrained classifiers: unusable classifier, names or groups, or too many unreadable clips."""


class ExportError(SoundspotError):
    """A model cannot be exported: missing package, rejected output path, or an exported model that gives other maps."""


class ClusterError(SoundspotError):
    """The Dask scheduler cannot be reached, or a worker process terminated unexpectedly.

    Attributes
    ----------
    task : int or None
        Index of the task that the worker was running, if known.
    """

    def __init__(self, message: str, *, task: int | None = None) -> None:
        super().__init__(message)
        self.task = task
