"""From features of the training set to DSOL's pseudo-classes and dictionaries.

Conventions
-----------
Features are (clip, feature) arrays, computed with in float64 on one thread: with several, scikit-learn adds partial sums
in the order in which threads finish, and the last bit of a center would change from run to run. Pseudo-classes are int64
(clip,) in 0 .. clusters - 1; keys are float32 (cluster, feature) of length 1.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.common.errors import TrainingError

KMEANS_STARTS = 10
MAX_STEPS = 1000  # of the logistic regression
REGULARIZATION = 1.0  # inverse strength, scikit-learn's own default, for features of unit variance


def cluster(features: np.ndarray, *, clusters: int, seed: int) -> np.ndarray:
    """Return pseudo-classes by k-means of L2-normalized features. Raises TrainingError where all features are alike."""
    from sklearn.cluster import KMeans  # importing it takes a second

    points = normalize(features)
    if np.ptp(points, axis=0).max() == 0:
        raise _nothing_to_tell_apart()
    with threadpool_limits(limits=1):
        found = KMeans(clusters, n_init=KMEANS_STARTS, tol=0, random_state=seed % 2**32).fit(points)
    return found.labels_.astype(np.int64)


def match_clusters(found: np.ndarray, before: np.ndarray, *, clusters: int) -> np.ndarray:
    """Number the clusters of `found` so that as many clips as can be keep the number that they have in `before`.

    Parameters
    ----------
    found, before : np.ndarray (clip,) int64 in 0 .. clusters - 1
        Pseudo-classes of this epoch and the one before.
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
    """Return the keys: the mean feature of each pseudo-class, L2-normalized; zeros for one without clips."""
    total = np.zeros((clusters, features.shape[1]))
    np.add.at(total, pseudo_class, features.astype(np.float64))
    return normalize(total).astype(np.float32)


def linear_classifier(
    features: np.ndarray, pseudo_class: np.ndarray, *, clusters: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a multinomial logistic regression. Raises TrainingError where all features are alike.

    Parameters
    ----------
    features : np.ndarray (clip, feature)
        Divided by their standard deviation over all entries, so that one regularisation fits features of any length.
    pseudo_class : np.ndarray (clip,) int64
        At least two different ones.
    clusters : int

    Returns
    -------
    weights : np.ndarray (cluster, feature) float32
        Each row L2-normalized; zeros for a class without clips.
    probabilities : np.ndarray (clip, cluster) float32
        What the classifier says of the same clips; rows sum to 1.
    """
    from sklearn.linear_model import LogisticRegression

    spread = features.std(dtype=np.float64)
    if spread == 0:
        raise _nothing_to_tell_apart()
    points = features.astype(np.float64) / spread
    with threadpool_limits(limits=1):
        fitted = LogisticRegression(C=REGULARIZATION, max_iter=MAX_STEPS).fit(points, pseudo_class)
        said = fitted.predict_proba(points)
    # Of two classes scikit-learn keeps the second one's weights alone.
    coefficients = fitted.coef_ if len(fitted.classes_) > 2 else np.concatenate([-fitted.coef_, fitted.coef_])
    weights = np.zeros((clusters, features.shape[1]))
    probabilities = np.zeros((len(features), clusters))
    weights[fitted.classes_], probabilities[:, fitted.classes_] = coefficients, said
    return normalize(weights).astype(np.float32), probabilities.astype(np.float32)


def _nothing_to_tell_apart() -> TrainingError:
    return TrainingError(
        "the features of all training clips are the same, there is nothing to cluster; lower the learning rate of "
        "`initialize` and run it again"
    )


def normalize(rows: np.ndarray) -> np.ndarray:
    """Scale every row to length 1, in float64; a row of zeros stays one."""
    rows = rows.astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
