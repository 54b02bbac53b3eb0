"""Look at the pseudo-labels of a run: lists, maps, neighbors, histograms, comparisons, export, verification.

`soundspot pseudo-labels` is the command. Start with `views.find_artifacts`; `figures` draws what `views` and `measures`
return, `text` prints it.
"""
