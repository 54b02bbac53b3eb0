"""Training: section 3.2 of the paper.

Start with `loop`. `train` has the stages `initialize` and `train`; a run is specified by `spec`, does not change as `run`, changes
as `state`, and is written to a `run_folder`. `batches` and `augmentation` make the training pairs, `checkpoints` reads and writes
models, `history` logs, `artifacts` finds what a run wrote.
"""
