"""Backbones: nets that map frames, or spectrograms as images, to maps of features.

`interface` is what all of them have in common, `resnet` the paper's ResNet, `timm_backbone` a model of timm, and `build` creates one
from its settings. `weights` finds and matches published weights, `centering` puts the cells of a map in the middle of their patches,
`pooling` has a max-pooling that is fast on a CPU, and `torchvision_compat` imports timm.
"""
