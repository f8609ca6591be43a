"""What all networks of other software share: the volumes that enter them, and a result from their probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.methods.card import Grid
from node.methods.card_fields import Card
from node.methods.contract import CORE, ENHANCING, OEDEMA, REGIONS, MethodResult, Volume
from node.methods.input_check import check_volumes
from node.study import Contrast

_LABELS = {"whole_tumour": OEDEMA, "tumour_core": CORE, "enhancing_tumour": ENHANCING}


def channels_of(volumes_zyx: Mapping[Contrast, Volume], card: Card) -> NDArray[np.float32]:
    """The contrasts as channels in the order of the card, ``[channel, i, j, k]``: the axes are those of its grid.

    With LPS they are x, y, z: the axis order of NIfTI, in which these networks are trained.

    Raises:
        ContentRefused: see `check_volumes`.
    """
    given = {contrast: volumes_zyx[contrast] for contrast in card.needed if contrast in volumes_zyx}
    check_volumes(given, card.needed, f"model pack {card.name}")
    return np.stack([_to_axes(volume, card.grid) for volume in given.values()]).astype(np.float32)


def _to_axes(array_zyx: NDArray[Any], grid: Grid) -> NDArray[Any]:
    order, flips = grid.axes()
    return np.flip(array_zyx.transpose(2, 1, 0).transpose(order), flips)


def from_axes(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """The inverse of the turn of `channels_of`: an array ``[i, j, k]`` in the axes of ``grid`` as ``[z, y, x]``."""
    order, flips = grid.axes()
    turned: NDArray[Any] = np.flip(array, flips).transpose(np.argsort(order)).transpose(2, 1, 0)
    return np.ascontiguousarray(turned)


def zscore_nonzero(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each channel with mean 0 and standard deviation 1 over its voxels that are not 0; those that are 0 stay so.

    As MONAI's ``NormalizeIntensity(nonzero=True, channel_wise=True)``.
    """
    out = np.zeros_like(channels)
    for channel, target in zip(channels, out, strict=True):
        inside = channel != 0
        values = channel[inside]
        target[inside] = (values - values.mean(dtype=np.float64)) / values.std(dtype=np.float64)
    return out


def result_of(probability: Mapping[str, NDArray[np.float32]], brain: NDArray[np.bool_], grid: Grid) -> MethodResult:
    """A result from probabilities per region: above 0.5 a voxel belongs to the region, and to those around it.

    One run of one network cannot disagree with itself: `spread_zyx` is 0 and `agreement` is empty, which says that
    nothing is known, not that all agrees.

    Args:
        probability: per region, in the axes of ``grid``.
        brain: in the same axes.
    """
    brain_zyx = from_axes(brain, grid)
    given = [region for region in REGIONS if region in probability]
    found = {region: from_axes(probability[region], grid) * brain_zyx for region in given}
    label = np.zeros(brain_zyx.shape, np.uint8)
    for region in given:  # from the outermost to the innermost
        label[found[region] > 0.5] = _LABELS[region]
    return MethodResult(label, found, np.zeros(brain_zyx.shape, np.float32), {})
