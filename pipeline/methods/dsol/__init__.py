"""DSOL (Hu et al. 2020): `method` has both rows of the tables, `clusters` the k-means and dictionary, `losses` and `objects` the rest."""
