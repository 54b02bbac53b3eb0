"""One module per section of the report: it reads results, writes tables and figures, and returns a `Section`.

- `paper_tables`: Tables 1 and 2. `scores`: all rows under each scoring rule. `curves`: success curves (Figure 3).
- `examples`: figures of clips (Figures 4 to 6). `retrieval`: audio retrieval (Figure 7).
- `emphasis`: bold values and merged columns in tables of scores.
- `relation`: pseudo-labels over the epochs. `clusters`: those of DSOL against class labels. `diagnostics`: what training measures on itself.
"""
