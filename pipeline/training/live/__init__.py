"""What a run shows while it trains.

- `steps`: the steps of one epoch, as the training loop hands them over.
"""
