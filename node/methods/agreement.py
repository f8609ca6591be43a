"""Uncertainty of the method, measured by the agreement of its three views, which are computed in any case."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

DOUBTFUL_DICE = 0.70
"""A region with a lower mean Dice between views is doubtful: it is reported with a caution, or, for the enhancing
tumour, not at all (docs/accuracy.md)."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of the three views on one region.

    Attributes:
        expected_dice: Dice of the region with the truth, if the mean probability p were each voxel's true probability:
            2 sum(p in region) / (voxels of the region + sum(p)). 1 if region and p are empty.
        view_dice: mean Dice of each pair of the views' own masks. 1 if all are empty.
        volume_cv: standard deviation over mean of the views' own volumes. 0 if all are empty.
    """

    expected_dice: float
    view_dice: float
    volume_cv: float

    @property
    def is_doubtful(self) -> bool:
        """True if the views agree too little for the region to be trusted."""
        return self.view_dice < DOUBTFUL_DICE


def dice(one: Mask, other: Mask) -> float:
    """Dice coefficient; 1 if both are empty (BraTS convention)."""
    total = int(one.sum()) + int(other.sum())
    return 1.0 if total == 0 else 2 * int((one & other).sum()) / total


def view_dice(views: Sequence[Mask]) -> float:
    """Mean Dice of each pair of views."""
    return float(np.mean([dice(one, other) for one, other in itertools.combinations(views, 2)]))


def agreement_of(region: Mask, probability: NDArray[np.float32], views: Sequence[Mask]) -> Agreement:
    """Agreement on ``region``, given the mean probability and each view's own mask, all of one shape."""
    mass = float(probability.sum(dtype=np.float64)) + int(region.sum())
    inside = float(probability[region].sum(dtype=np.float64))
    volumes = np.array([view.sum() for view in views], dtype=np.float64)
    return Agreement(
        expected_dice=1.0 if mass < 1 else 2 * inside / mass,
        view_dice=view_dice(views),
        volume_cv=float(volumes.std() / volumes.mean()) if volumes.any() else 0.0,
    )
