"""Commands that score models: `evaluate` (also `protocols`), `evidence`, `scores`, `search` and `sensitivity`."""
