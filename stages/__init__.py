"""The stages of dvc.yaml: one command each, parameters in, one library call, exit code out. No maths here."""
