"""Run a trained model on your own media (`soundspot localize`).

- `localizer`: the inference API for NumPy arrays: response maps, verdicts ("sounding", "silent", "not found") and boxes.
- `regions`: sounding regions of a map, and their boxes.
- `jobs`: finds input files and names their outputs. `run`: processes one input file.
- `sliding_windows`: audio windows over a whole file. `video`: heat maps rendered over a video.
- `serve`: a local web page where you can drop a video.
"""
