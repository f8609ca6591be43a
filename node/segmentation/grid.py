"""The common grid of the method. Only this module resamples: series onto the grid, and results back to the source.

The grid is 1 mm isotropic, and its axes are the patient's (LPS): x to the left, y to posterior, z to superior. The
networks were trained in this orientation.
"""

from __future__ import annotations

import itertools

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

SPACING_MM = 1.0


def common_grid(reference: sitk.Image) -> sitk.Image:
    """An empty image whose 1 mm LPS voxels cover all of ``reference``'s voxels."""
    size_xyz = np.array(reference.GetSize())
    ends = [(-0.5, float(n) - 0.5) for n in size_xyz]
    corners = np.array(
        [reference.TransformContinuousIndexToPhysicalPoint(corner) for corner in itertools.product(*ends)]
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = np.ceil((high - low) / SPACING_MM - 1e-6).astype(int)
    grid = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    grid.SetSpacing([SPACING_MM] * 3)
    grid.SetOrigin((low + SPACING_MM / 2).tolist())
    return grid


def to_grid(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None = None) -> sitk.Image:
    """``image`` on ``grid``, linear; 0 outside its field of view.

    Args:
        transform: maps points of the grid to points of ``image`` (as a registration with the grid fixed gives it).
    """
    resampled: sitk.Image = sitk.Resample(
        image, grid, transform or sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, 0.0, sitk.sitkFloat32
    )
    return resampled


def field_of_view(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None = None) -> NDArray[np.bool_]:
    """``[z, y, x]``: the voxels of ``grid`` in the field of view of ``image``, up to the edges of its outer voxels."""
    ones = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    ones.CopyInformation(image)
    transform = transform or sitk.Transform(3, sitk.sitkIdentity)
    seen = sitk.Resample(ones, grid, transform, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    mask: NDArray[np.bool_] = sitk.GetArrayFromImage(seen) > 0
    return mask


def to_source(array_zyx: NDArray[np.float32], grid: sitk.Image, source: sitk.Image) -> NDArray[np.float32]:
    """Resample a map on ``grid`` (probabilities, never labels), ``[z, y, x]``, to ``source``; linear, 0 outside."""
    image = sitk.GetImageFromArray(array_zyx)
    image.CopyInformation(grid)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    back = sitk.Resample(image, source, identity, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    values: NDArray[np.float32] = sitk.GetArrayFromImage(back)
    return values
