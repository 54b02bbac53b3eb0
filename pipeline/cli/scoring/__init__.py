"""Commands that score models: `evaluate` (also `protocols`), `evidence`, `search` and `sensitivity`."""
