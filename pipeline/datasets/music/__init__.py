"""MUSIC-Synthetic: mosaics of four solo-instrument frames, with the mixed audio of two of them.

`published` imports the dataset as its authors distribute it; `spectrograms` rebuilds audio from the spectrograms in it.
`build` makes the dataset from solo videos: `solos` finds and splits them, `segments` cuts them, `schedule` draws the
mosaics, `mosaic` and `media` compose and write them. `boxes` reads the published boxes, for both.
"""
