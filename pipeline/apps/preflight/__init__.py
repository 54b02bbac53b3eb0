"""What to know before training for hours: is the dataset complete, does it fit, does this machine have what it takes?

- `check`: all checks of a dataset (`soundspot check`). `findings`: their result, as data and as text.
- `datasets`: clip lists, boxes and media. `outputs`: file sizes and disk space.
- `timing`: seconds per pair of the real stages, on the noise of `synthetic`. `memory`: memory in use and available.
- `environment`: what is installed on this machine (`soundspot doctor`). `dvc_locks`: locks left behind by killed DVC commands.
"""
