"""The stages of dvc.yaml. Each is one command that reads the settings and makes one library call."""
