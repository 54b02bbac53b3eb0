"""Mosaics of photographs with the recordings of some of them: made from two folders of files by class.

`build` runs the import: `files` finds photographs and recordings in generic folders, Tiny-ImageNet and ESC-50 (`classes`: the
classes that those two share; `boxes`: boxes of the photographs), `split` splits them by file, `reading` decodes each once,
`schedule` draws the mosaics, and `compose` writes them.
"""
