"""Evaluation of trained models: response maps, scores, calibration, and measures of the audio embeddings.

- `evaluate`: the stage: maps → calibration → scores → files. `class_evaluation`: scores per class, for DSOL.
- `response_maps`: maps of a model on a split. `epoch_maps`: maps of intermediate checkpoints.
- `calibration`: response strengths behind the verdict "source not found".
- `audio_similarity`: how similar clips sound, and the δ_a that this suggests.
- `relation_quality`, `retrieval`: how well audio embeddings agree with class labels. `cluster_quality`: how well clusters do.
- `labels`: display names of variants and baselines.
"""
