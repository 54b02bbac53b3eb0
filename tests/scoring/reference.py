"""cIoU and IoU written as sums over pixels, independent of the counts in `pipeline.scoring.metrics`."""

import numpy as np


def ciou(region, g):
    """Consensus IoU of regions (..., row, col) with consensus maps in [0, 1]: Σ(P·g) / (Σg + Σ(P·[g = 0]))."""
    region, g = np.asarray(region, dtype=bool), np.asarray(g, dtype=np.float64)
    hit = np.where(region, g, 0.0).sum(axis=(-2, -1))
    return hit / (g.sum(axis=(-2, -1)) + (region & (g == 0)).sum(axis=(-2, -1)))


def iou(region, sounding):
    """Plain IoU of regions (..., row, col) with the support of the consensus map."""
    region, sounding = np.asarray(region, dtype=bool), np.asarray(sounding, dtype=bool)
    return (region & sounding).sum(axis=(-2, -1)) / (region | sounding).sum(axis=(-2, -1))
