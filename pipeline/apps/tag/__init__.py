"""Labels from pretrained classifiers, for methods that learn from class labels (`soundspot tag`).

`classes` has the names and groups of a classifier's classes, `frames` the frame classifiers (timm), `sounds` the taggers of audio,
`runtimes` opens their files (ONNX, TFLite). `parts` tags the clips of one shard, `run` a split; `label_file` writes the result.
"""
