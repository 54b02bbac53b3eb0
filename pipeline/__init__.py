"""soundspot's library: from video files to a scored sound-localisation model. Knows nothing of DVC or of click."""

__version__ = "0.1.0"
