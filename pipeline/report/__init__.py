"""The report on a dataset: tables, figures and one HTML page that shows them.

- `report`: the entry point, `write_report`: collects the sections and writes ``index.md`` and ``index.html``.
- `section`: the class `Section`. `sections`: one module per section, which also writes its CSV files and figures.
- `page`: the HTML page. `browse`: its viewer over all clips of a run, from a local server.
- `evidence`: a page of its own, on what the results of several datasets show about each claim of the paper.
- Shared inputs: `source` (results and shards), `examples` (clips to show), `epoch_quality` (pseudo-labels over the epochs),
  `provenance` (code, data, training and machine, for the footer), `published` (values printed in the paper).
"""
