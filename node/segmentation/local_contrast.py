"""The exam as the plausibility checks look at it: coarse, within the brain, without receive field and large lesions.

Each voxel's *local contrast* is the logarithm of its signal relative to its neighbourhood of a few centimetres. Gain, a
smooth receive field and a large oedema cancel out; the folding of cortex, ventricles and vessels remains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from node.errors import ContentRefused
from node.study import Contrast

STEP = 2
"""Voxels of the 1 mm grid per coarse voxel and axis."""

_MARGIN = 6  # coarse voxels around the brain, so that a mirrored brain has room
_SMOOTHING = 0.7  # coarse voxels; equalises slices of 1 mm and of 6 mm
_NEIGHBOURHOOD = 6.0  # standard deviation in coarse voxels: 12 mm
_EDGE = 2  # coarse voxels; the border of a mask is the border of every contrast, and would make any two look alike

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CoarseExam:
    """An exam in voxels of 2 mm, cropped to the brain; all arrays are ``[z, y, x]`` and of one shape.

    Attributes:
        names: how each contrast's series is named to a human.
        signal: each contrast, 0 or more.
        local: its local contrast, defined inside ``brain``.
        brain: the brain as far as every contrast has seen it.
        inner: ``brain`` without its border.
    """

    names: Mapping[Contrast, str]
    signal: Mapping[Contrast, Volume]
    local: Mapping[Contrast, Volume]
    brain: Mask
    inner: Mask

    def inner_values(self, contrast: Contrast) -> Volume:
        """Local contrast in the voxels of ``inner``, one axis."""
        return self.local[contrast][self.inner]


def coarse_exam(
    volumes_zyx: Mapping[Contrast, NDArray[np.floating]], brain_zyx: Mask, names: Mapping[Contrast, str]
) -> CoarseExam:
    """The exam for the checks, from co-registered volumes.

    Args:
        volumes_zyx: every contrast on one grid of 1 mm, LPS axes.
        brain_zyx: the brain as far as every contrast has seen it, on that grid.

    Raises:
        ContentRefused: the brain that all contrasts have seen is empty.
    """
    box = _box_of(brain_zyx)
    brain = coarse(brain_zyx[box].astype(np.float32)) > 0.5
    signal = {contrast: coarse(np.maximum(volume[box], 0)) for contrast, volume in volumes_zyx.items()}
    return exam_of_signal(signal, brain, names)


def exam_of_signal(signal: Mapping[Contrast, Volume], brain: Mask, names: Mapping[Contrast, str]) -> CoarseExam:
    """As `coarse_exam`, from what is coarse already."""
    inner = ndimage.binary_erosion(brain, iterations=_EDGE)
    if not inner.any():
        raise ContentRefused("the series have seen no part of the brain in common")
    local = {contrast: local_contrast(volume, brain) for contrast, volume in signal.items()}
    return CoarseExam(names, signal, local, brain, inner)


def local_contrast(signal: Volume, brain: Mask) -> Volume:
    """Logarithm of ``signal`` relative to the neighbourhood inside ``brain``; 0 outside."""
    smooth = ndimage.gaussian_filter(signal, _SMOOTHING)
    inside = smooth[brain]
    least = max(float(np.percentile(inside, 1)), 1e-3 * float(np.median(inside)), 1e-6)
    weight = brain.astype(np.float32)
    values = np.log(np.maximum(smooth, least)) * weight
    around = ndimage.gaussian_filter(values, _NEIGHBOURHOOD)
    around /= np.maximum(ndimage.gaussian_filter(weight, _NEIGHBOURHOOD), 1e-3)
    local: Volume = ((values - around) * weight).astype(np.float32)
    return local


def ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rank of each value among all, 0..1; equal values share a rank."""
    ranked: NDArray[np.float64] = stats.rankdata(values) / values.size
    return ranked


def coarse(array_zyx: NDArray[np.floating]) -> Volume:
    """Means of blocks of ``STEP`` voxels; a rest at the end of an axis is left out."""
    z, y, x = (n // STEP for n in array_zyx.shape)
    blocks = array_zyx[: z * STEP, : y * STEP, : x * STEP].reshape(z, STEP, y, STEP, x, STEP)
    means: Volume = blocks.mean((1, 3, 5), dtype=np.float32)
    return means


def _box_of(brain_zyx: Mask) -> tuple[slice, ...]:
    """The slices that hold the brain and a margin around it, as far as the grid reaches."""
    box = ndimage.find_objects(brain_zyx.astype(np.uint8))
    if not box or box[0] is None:
        raise ContentRefused("the series have seen no part of the brain in common")
    margin = _MARGIN * STEP
    return tuple(slice(max(one.start - margin, 0), one.stop + margin) for one in box[0])
