"""Importers of public benchmarks and of your own videos: each writes ``data_manifests/NAME/`` from local files.

One module per dataset: `soundnet_flickr` (boxes: `flickr_boxes`), `vggss`, `is3`, and `folder` for your own videos.
Shared parts: `lists` reads id lists, `box_checks` checks boxes, `layouts` finds media files, `silent` pairs frames with
the audio of other clips, `leaks` finds training clips in the test set, `report` collects the findings, `write` writes the
dataset, `params_block` its training settings. `own_folder` compares a folder with the dataset imported from it, and
`legacy_pickle` reads old annotation pickles safely.
"""
