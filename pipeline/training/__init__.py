"""Training: section 3.2 of the paper. Start with `loop`.

- `train`: the stages `initialize` and `train`. `parallel`: several seeds at once, or several ranks. `relabel`: reuses the checkpoints of an equal run.
- `spec`: a run's specification. `run`: its fixed inputs. `state`: its changing state. `run_folder`: its files.
- `batches`, `augmentation`: the training pairs. `class_labels`: labels, for methods that learn from them.
- `live`: what a run shows while it trains.
- `checkpoints`: reads and writes models. `history`: the log. `diagnostics`: detects a collapsed model. `artifacts`: locates what a run wrote.
"""
