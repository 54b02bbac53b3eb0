"""What the systems of the paper's tables differ in: their loss, and how a response map is read from the model.

`base` is the interface, `registry` the list of all methods, `build` makes one from its settings, `trained_model` is a model
with its method. The paper's own method is `iterative`; its initialization, Eq. 3, is `contrastive`.
"""
