"""Run a trained model on your own media (`soundspot localize`).

`jobs` finds the input files and names their outputs, `run` processes one of them, and `video` renders heat maps over a
video. `Localizer` is the inference API for NumPy arrays: response maps, verdicts ("sounding", "silent", "not found")
and the boxes of sounding regions.
"""
