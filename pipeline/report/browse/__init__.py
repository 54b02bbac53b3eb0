"""`soundspot browse`: the viewer of the report over all clips of a run, from a read-only server on this machine.

- `run_clips`: finds clips and reads what the viewer shows of them, one page at a time.
- `server`: answers the browser, on 127.0.0.1 only.
"""
