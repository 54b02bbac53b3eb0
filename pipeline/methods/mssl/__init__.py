"""MSSL (Qian et al. 2020): `method` has all rows of the tables, `losses` its losses."""
