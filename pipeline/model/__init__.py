"""The two encoders and the equations of the paper.

`equations` has Eq. 1 to 7 in order, `encoders` the ResNets that they are applied to, `pretrained` reads published weights, and
`inference` runs a model over shards without gradient.
"""
