"""The two encoders and the equations of the paper.

`equations` has Eq. 1 to 7 in order, `encoders` the ResNets whose features they take, `pretrained` loads published weights, and
`inference` runs a model over shards without gradients.
"""
