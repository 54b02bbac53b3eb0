"""Decode media files into one frame and one audio window per clip, and compute log-mel spectrograms.

- `clip`: the entry point: a video, or an image file plus an audio file, goes in; arrays come out.
- `image`: still images. `pixels`: video frames to RGB.
- `container`: opens a file and seeks in it. `streams`: which streams are used. `pyav`: what PyAV may open, and
  what it raises. `joined_clock`: one clock for joined recordings.
- `video` and `audio` decode at a timestamp. `audio_blocks`: decoded samples with exact times.
- `readable`: opens local and remote files, and tells whether the system or the content is why a file cannot be read.
- `log_mel`: the spectrogram that the audio encoder reads. `torchaudio_compat`: imports torchaudio without its extension.

Every problem with a file is reported as a `MediaError` that names the file.
"""
