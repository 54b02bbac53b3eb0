"""Look at the pseudo-labels of a run (`soundspot pseudo-labels`).

- `views`: finds the artifacts of a run, and lists clips, maps and neighbors. Start with `views.find_artifacts`.
- `relation`: the audio relation of each epoch, with a recommended δ_a.
- `measures`: histograms of the pseudo-labels, and comparisons of epochs and runs.
- `text` prints what `views` and `measures` return, `figures` draws it, `terminal_images` shows images in the terminal.
- `export`: pseudo-labels as files for other programs. `templates`: HTML of a comparison.
- `verify`: checks that the files of a run are complete and belong to it.
"""
