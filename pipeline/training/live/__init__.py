"""What a run shows while it trains. Nothing here changes a result.

- `view`: the progress bar, one line per epoch, and the log of a run. `steps`: the steps of one epoch. `lines`: what is printed.
- `curve`: the loss over the steps of a run. `writers`: logs for `dvc plots`, `dvc exp show` and TensorBoard.
"""
