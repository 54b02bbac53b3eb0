"""One module per section of the report: it reads results, writes tables and figures, and returns a `Section`."""
