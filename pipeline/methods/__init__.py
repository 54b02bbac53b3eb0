"""The methods of the paper's tables, which differ in their loss and in how they read a response map.

- `base`: the interface. `registry`: all methods. `build`: creates one from its settings.
- `heads`: layers that a method adds to the model, and that start as the identity.
- `trained_model`: a model together with its method.
- `iterative`: the paper's method. `contrastive`: its initialization, Eq. 3.
- Baselines, described in docs/methods.md: `attention`, `dmc`, `dsol`, `mssl`.
"""
