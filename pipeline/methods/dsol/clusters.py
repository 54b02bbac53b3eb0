"""Pseudo-classes, dictionaries and linear classifiers from features of the training set, for DSOL.

Conventions
-----------
Features are (clip, feature) arrays. Computation is in float64 and on one thread: with several threads, scikit-learn adds partial sums
in the order in which the threads finish, so the last bits of a center would differ between runs. Pseudo-classes are int64 (clip,) in
0 .. clusters - 1; keys are float32 (cluster, feature) of unit length.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.common.errors import DivergenceError

KMEANS_STARTS = 10
MAX_STEPS = 1000  # iterations of the logistic regression
REGULARIZATION = 1.0  # inverse strength; scikit-learn's default, which assumes unit variance


def cluster(features: np.ndarray, *, clusters: int, seed: int) -> np.ndarray:
    """Return pseudo-classes: k-means of the L2-normalized features. Raises DivergenceError if all features are equal."""
    from sklearn.cluster import KMeans  # the import takes a second

    points = normalize(features)
    if np.ptp(points, axis=0).max() == 0:
        raise _all_equal()
    with threadpool_limits(limits=1):
        found = KMeans(clusters, n_init=KMEANS_STARTS, tol=0, random_state=seed % 2**32).fit(points)
    return found.labels_.astype(np.int64)


def match_clusters(found: np.ndarray, before: np.ndarray, *, clusters: int) -> np.ndarray:
    """Renumber the clusters of `found` so that as many clips as possible keep their number from `before`.

    Parameters
    ----------
    found, before : np.ndarray (clip,) int64 in 0 .. clusters - 1
        Pseudo-classes of this epoch and of the previous one.
    clusters : int

    Returns
    -------
    np.ndarray (clip,) int64
        The same partition of the clips as `found`.
    """
    from scipy.optimize import linear_sum_assignment

    shared = np.zeros((clusters, clusters), dtype=np.int64)
    np.add.at(shared, (found, before), 1)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    number = np.empty(clusters, dtype=np.int64)
    number[rows] = columns
    return number[found]


def dictionary(features: np.ndarray, pseudo_class: np.ndarray, *, clusters: int) -> np.ndarray:
    """Return the keys: the L2-normalized mean feature of each pseudo-class; zeros for a class without clips."""
    total = np.zeros((clusters, features.shape[1]))
    np.add.at(total, pseudo_class, features.astype(np.float64))
    return normalize(total).astype(np.float32)


def linear_classifier(
    features: np.ndarray, pseudo_class: np.ndarray, *, clusters: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a multinomial logistic regression. Raises DivergenceError if all features are equal.

    Parameters
    ----------
    features : np.ndarray (clip, feature)
        They are divided by their standard deviation over all entries, so that one regularization suits features of any scale.
    pseudo_class : np.ndarray (clip,) int64
        At least two distinct ones.
    clusters : int

    Returns
    -------
    weights : np.ndarray (cluster, feature) float32
        Each row L2-normalized; zeros for a class without clips.
    probabilities : np.ndarray (clip, cluster) float32
        Predictions for the same clips; rows sum to 1.
    """
    from sklearn.linear_model import LogisticRegression

    spread = features.std(dtype=np.float64)
    if spread == 0:
        raise _all_equal()
    points = features.astype(np.float64) / spread
    with threadpool_limits(limits=1):
        fitted = LogisticRegression(C=REGULARIZATION, max_iter=MAX_STEPS).fit(points, pseudo_class)
        predicted = fitted.predict_proba(points)
    # For two classes, scikit-learn only keeps the weights of the second.
    coefficients = fitted.coef_ if len(fitted.classes_) > 2 else np.concatenate([-fitted.coef_, fitted.coef_])
    weights = np.zeros((clusters, features.shape[1]))
    probabilities = np.zeros((len(features), clusters))
    weights[fitted.classes_], probabilities[:, fitted.classes_] = coefficients, predicted
    return normalize(weights).astype(np.float32), probabilities.astype(np.float32)


def _all_equal() -> DivergenceError:
    return DivergenceError(
        "the features of all training clips are equal, so they cannot be clustered; lower the learning rate of `initialize` "
        "and run it again"
    )


def normalize(rows: np.ndarray) -> np.ndarray:
    """Scale every row to unit length, in float64; rows of zeros stay zero."""
    rows = rows.astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
