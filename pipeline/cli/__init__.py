"""The `soundspot` command: arguments, help and output only; the work is done by the library.

One module per command, imported when the command is called. `main.COMMANDS` lists them.
"""
