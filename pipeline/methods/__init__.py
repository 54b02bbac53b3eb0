"""The methods of the paper's tables, which differ in their loss and in how they read a response map.

`base` defines the interface, `registry` lists all methods, `build` creates one from its settings, and `trained_model` pairs a model
with its method. The paper's method is `iterative`; its initialization, Eq. 3, is `contrastive`. The baselines are described in
docs/methods.md.
"""
