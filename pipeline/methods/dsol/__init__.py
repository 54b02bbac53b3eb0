"""DSOL (Hu et al. 2020): `method` has both rows of the tables.

`clusters` has k-means, dictionary and linear classifiers, `losses` the losses, `objects` the features of objects.
"""
