"""Render heat maps over a video.

`overlay` decodes frames and audio windows, runs the model and blends the heat map into the frames; `canvas` converts
frames to the output's size and colors; `writer` encodes the MP4 and copies the audio track.
"""
