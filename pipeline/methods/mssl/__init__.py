"""MSSL (Qian et al. 2020): `method` has all rows of the tables, `losses` the losses and maps."""
