"""Tools that no stage of the pipeline needs.

`preflight` checks before training, `inspection` shows pseudo-labels, `compare` compares scores, `localize` runs a model
on files, `export` converts a model for other programs, `tag` labels clips
with pretrained classifiers. These packages do not import each other.
"""
