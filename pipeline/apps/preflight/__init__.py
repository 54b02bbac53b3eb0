"""What to know before training for hours: is the dataset complete, does it fit, does this machine have what it takes?

`soundspot check` runs `check.check_dataset`, `soundspot doctor` runs `environment.examine`.
"""
