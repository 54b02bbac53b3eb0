"""`soundspot import`: `commands` has the group, the shared options and the importers of datasets; `mosaics` has those that
compose mosaics.
"""
