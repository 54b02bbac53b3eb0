"""The report on a dataset: tables, figures and one HTML page that shows them.

`report.write_report` is the entry point. It collects the `Section`s made by `sections/`, which also write their CSV files and
figures, and renders them as ``index.md`` and, in `page/`, as ``index.html``. Shared inputs are in `source` and `examples`.
"""
