"""Render heat maps over a video.

- `overlay`: decodes frames and audio windows, runs the model and blends the heat map into the frames.
- `overlay_settings`: map rate, smoothing, encoding and time limit.
- `canvas`: frames in the output's size and colors.
- `writer`: encodes the MP4. `audio_track`: copies or encodes its audio track.
"""
