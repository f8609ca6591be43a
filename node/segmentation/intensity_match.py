"""Heads on one coarse grid and at one intensity, so that two series can be compared voxel by voxel."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from node.errors import ContentRefused

STEP_MM = 2  # voxel size of the grid of the comparison
_SMOOTHING_MM = 2.5  # standard deviation; equalises series of different sharpness
_CLEARLY = 0.25  # clearly brighter: by a quarter, and by a quarter of the tissue's level
_OUTER_MM = 12.0  # skin, scalp fat and the skull's marrow: bright, thin, and the first to differ when the head moves
LEAST_HEAD_ML = 500.0
AIR = 0.6  # fraction of the threshold between air and tissue; low, since bone and fluid belong to the head
_CLOSING_STEPS = 4
_FIELD_ORDER = 3  # order of the polynomial that models gain and receive field
_FIELD_SAMPLES = 60_000
_FIELD_ROUNDS = 15


def coarse_grid(fine: sitk.Image) -> sitk.Image:
    """An empty image that covers ``fine`` (1 mm) with voxels of the comparison's size."""
    grid = sitk.Image([-(-n // STEP_MM) for n in fine.GetSize()], sitk.sitkUInt8)
    grid.SetSpacing([float(STEP_MM)] * 3)
    grid.SetOrigin(fine.TransformContinuousIndexToPhysicalPoint([(STEP_MM - 1) / 2] * 3))
    return grid


def smooth(image: sitk.Image, seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``[z, y, x]``, smoothed, without negative values; the edge of the common field of view darkens both alike."""
    values = np.where(seen, np.maximum(sitk.GetArrayFromImage(image).astype(np.float64), 0.0), 0.0)
    smooth: NDArray[np.float64] = ndimage.gaussian_filter(values, _SMOOTHING_MM / STEP_MM)
    return smooth


def tissue_threshold(values: NDArray[np.float64], seen: NDArray[np.bool_], name: str) -> float:
    """Threshold between air and tissue (Otsu 1979)."""
    inside = values[seen]
    highest = np.percentile(inside, 99.5) if inside.size else 0.0
    if highest <= 0.0:
        raise ContentRefused(f"{name} is empty where the two overlap")
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(np.minimum(inside, highest)[None, None, :]))
    return float(otsu.GetThreshold())


def head_of(tissue: NDArray[np.bool_], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest component of tissue, with its cavities."""
    pieces = sitk.GetImageFromArray((tissue & seen).astype(np.uint8))
    closed = sitk.BinaryMorphologicalClosing(pieces, [_CLOSING_STEPS] * 3)
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(closed)) == 1
    head: NDArray[np.bool_] = (sitk.GetArrayFromImage(sitk.BinaryFillhole(largest)) > 0) & seen
    return head


def log_field(a: NDArray[np.float64], b: NDArray[np.float64], both: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logarithm of the smooth gain of ``a`` over ``b`` in every voxel, zyx.

    A polynomial is fitted to the tissue that both show, iteratively reweighted by Tukey's biweight, so that enhancing
    voxels do not influence it.
    """
    ratio = np.log(a[both] / b[both])
    every = -(-ratio.size // _FIELD_SAMPLES)
    axes = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in a.shape), indexing="ij", sparse=True)
    terms = [
        axes[0] ** i * axes[1] ** j * axes[2] ** k
        for i in range(_FIELD_ORDER + 1)
        for j in range(_FIELD_ORDER + 1 - i)
        for k in range(_FIELD_ORDER + 1 - i - j)
    ]
    samples = np.stack([np.broadcast_to(term, a.shape)[both][::every] for term in terms], axis=1)
    values = ratio[::every]
    weights = np.ones_like(values)
    for _ in range(_FIELD_ROUNDS):
        weighted = samples * weights[:, None]
        coefficients = np.linalg.lstsq(weighted, values * weights, rcond=None)[0]
        residual = np.abs(values - samples @ coefficients)
        scale = max(4 * 1.4826 * float(np.median(residual)), 1e-3)
        weights = 1 - np.clip(residual / scale, 0.0, 1.0) ** 2  # square root of the biweight, as residuals are squared
    field = sum(coefficient * term for coefficient, term in zip(coefficients, terms, strict=True))
    # far outside the head a polynomial diverges
    limited: NDArray[np.float64] = np.clip(field, coefficients[0] - 3.0, coefficients[0] + 3.0)
    return limited


def at_one_level(
    a: NDArray[np.float64], b: NDArray[np.float64], both: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``a`` and ``b`` without the smooth gain between them, in units of the level of the tissue ``both``."""
    half = np.exp(log_field(a, b, both) / 2)
    a, b = a / half, b * half
    level = np.median(np.sqrt(a[both] * b[both]))
    return a / level, b / level


def inner_of(head: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The head deeper than its outer layers."""
    depth_mm = ndimage.distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1, 1:-1] * STEP_MM
    inner: NDArray[np.bool_] = depth_mm > _OUTER_MM
    return inner


def clearly_brighter(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    around = ndimage.maximum_filter(b, 3)
    brighter: NDArray[np.bool_] = (a - around > _CLEARLY) & (a > (1 + _CLEARLY) * around)
    return brighter
