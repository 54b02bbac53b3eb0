"""Backbones: nets that map frames, or spectrograms as images, to maps of features.

`interface` is what all of them have in common, `resnet` the paper's ResNet, and `build` creates one from its settings.
"""
