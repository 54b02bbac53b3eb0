"""The values printed in Tables 1 and 2 of the paper, for comparison with ours.

Conventions
-----------
Percent, as printed: success rate (the paper's "cIoU@threshold") and AUC. A row is named like the variant or content-free
baseline that it is compared with; a dataset like its folder in ``data_manifests/``. All values come from the authors' own code
and test sets: 250 pairs of SoundNet-Flickr, 455 of MUSIC-Synthetic. For MSSL on SoundNet-Flickr 10k the paper has two
values, 51.2 / 50.4 in Table 1 and 52.2 / 49.6 in Table 2; both are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLICKR = ("paper256",)
# The paper does not state whether a map is scored against each source or against their union.
MUSIC = ("music-synthetic-a", "music-synthetic-b")


@dataclass(frozen=True)
class Published:
    """The column of one dataset in a table.

    Attributes
    ----------
    threshold : float
        Smallest cIoU of a success.
    protocols : tuple of str
        Protocols that fit the paper's description; under any other the values are not comparable.
    trained_on : str
        Size of the paper's training set.
    rows : mapping of str to (float, float)
        Name → success rate and AUC, percent.
    """

    threshold: float
    protocols: tuple[str, ...]
    trained_on: str
    rows: Mapping[str, tuple[float, float]]


TABLE_1 = {
    "soundnet_flickr": Published(
        0.5,
        FLICKR,
        "10,000 pairs",
        {
            "random": (7.2, 30.7),
            "attention": (42.1, 43.8),
            "dmc": (41.4, 45.0),
            "mssl": (51.2, 50.4),
            "dsol": (56.6, 51.5),
            "iterative": (71.0, 58.0),
        },
    ),
    "soundnet_flickr_20k": Published(
        0.5,
        FLICKR,
        "20,000 pairs",
        {
            "attention": (45.3, 46.7),
            "dmc": (47.0, 47.5),
            "mssl": (53.8, 50.6),
            "dsol": (58.7, 52.9),
            "iterative": (74.7, 59.6),
        },
    ),
    "music_synthetic": Published(
        0.3,
        MUSIC,
        "25,000 pairs",
        {
            "random": (0.2, 9.6),
            "attention": (6.9, 14.2),
            "dmc": (6.6, 15.3),
            "mssl": (4.3, 12.1),
            "dsol": (15.4, 17.0),
            "iterative": (25.1, 21.9),
        },
    ),
}
TABLE_2 = {
    "soundnet_flickr": Published(
        0.5,
        FLICKR,
        "10,000 pairs",
        {
            "mssl": (52.2, 49.6),
            "mssl_stage1": (42.2, 48.1),
            "mssl_stage1_unlabeled": (10.8, 30.2),
            "mssl_stage1_eq2": (47.4, 48.7),
            "mssl_stage1_unlabeled_eq2": (47.0, 48.7),
            "mssl_stage1_eq2_eq1": (50.2, 49.0),
            "mssl_stage1_unlabeled_eq2_eq1": (46.6, 48.3),
            "initial": (57.8, 52.1),
            "itr": (64.2, 54.2),
            "itr_intra": (69.4, 56.9),
            "itr_inter": (67.1, 55.9),
            "iterative": (71.0, 58.0),
        },
    ),
}
