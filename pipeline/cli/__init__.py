"""The `soundspot` command: arguments, help and output only; the work is done by the library.

`main` lists all commands in `COMMANDS` and imports a command's module when it is called. Most modules are named after their
command: `calibrate`, `check`, `demo`, `doctor`, `export`, `localize`, `serve`, `tag` and `train`. The packages `importing`, `scoring` and
`pseudo_labels` have groups of related commands. `options` has the shared options, and `targets` resolves a path or the name of a
variant to a model or pseudo-labels.
"""
