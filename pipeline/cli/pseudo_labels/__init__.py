"""`soundspot pseudo-labels`, or `soundspot pl`: inspect the pseudo-labels of each epoch.

`browse` is a command of its own. `commands` has the group and most subcommands, `files` those that export and verify files, and `options` what they share.
"""
