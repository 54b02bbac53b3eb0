"""Training: section 3.2 of the paper.

Start with `loop`. `train` has the stages `initialize` and `train`. A run's specification is in `spec`, its fixed inputs are in `run`, its
changing state is in `state`, and its files are in `run_folder`. `batches` and `augmentation` make the training pairs, `checkpoints`
reads and writes models, `history` logs, and `artifacts` locates what a run wrote.
"""
