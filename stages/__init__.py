"""The stages of dvc.yaml. Each is one command that reads the settings and makes one library call.

The library is imported when a command runs, so that Ctrl-C during the import also ends it with one line and exit code 130.
"""
