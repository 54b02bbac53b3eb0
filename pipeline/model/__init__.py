"""The two encoders and the equations of the paper.

`equations` has Eq. 1 to 7 in order, `relation` another choice of the pairs that Eq. 6 relates, `encoders` the model whose features they
take, `backbones` the nets in it, `pretrained` reads files of tensors, `inference` runs a model over shards without gradients, `devices`
knows what a device computes fast, `optimizer` has the optimizer, `transfer` moves data to a device, and `ranks` shares the work among several processes.
"""
