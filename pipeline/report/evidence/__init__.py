"""The page of evidence: what the results on several datasets show about each claim of the paper.

- `results`: the scores of one dataset, per seed and clip. `estimates`: differences with intervals, and the verdict.
- `claims`: the paper's claims as comparisons of rows. `epochs`: its claims about what happens during training.
- `findings`: content-free maps, scoring rules, shuffled audio, and rows below their start.
- `picture`: the figures. `page`: the text, `wording`: its numbers. `evidence`: the entry point, `write_evidence`.
"""
