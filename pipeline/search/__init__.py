"""`soundspot search`: settings of every row of the tables, chosen with one budget on the validation split.

- `space`: what is searched for a row. `study`: its trials on disk, and the sampler (Optuna). `trial`: trains and scores one of them.
- `data`: the two splits. `validation`: the score. `search`: all rows.
- `results`: the table of all trials, and the winners. `figure`: its plot. `winners_file`: writes the winners to params.yaml.
"""
