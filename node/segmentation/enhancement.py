"""Which of two T1-weighted series was acquired after contrast agent, from their images alone.

Contrast agent brightens vessels, mucosa, choroid plexus, pituitary and tissue with a broken blood-brain barrier: a few
per cent of the head. All other tissue stays the same. So the two series are registered and brought to one intensity
(gain and receive field, up to a smooth polynomial), and the share that is clearly brighter in one is compared with the
share that is clearly brighter in the other. Noise, motion, blur and gain affect both shares alike; only enhancement
makes one large and leaves the other close to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from node.errors import ContentRefused, RefusedError
from node.segmentation.align import align_rigid
from node.segmentation.grid import common_grid, field_of_view, to_grid
from node.segmentation.volume import read_volume
from node.study import Comparison, Series

LEAST_SHARE = 0.005
"""Least share of the inner head that must be brighter. Whole heads with contrast agent had 0.012 to 0.044; the same
head again, moved, blurred, noisy, cropped or with another receive field, had at most 0.00001."""

LEAST_RATIO = 8.0
"""Least ratio of the brighter to the darker share. Pairs before and after contrast agent that were acquired alike had
14 or more; two different sequences, both after contrast agent, had 2."""

LARGEST_SURFACE_RATIO = 2.0
"""Largest ratio of the brighter share of the outer head to that of the inner head. Contrast agent gave 0.01 to 0.9
(skull-stripped 1.6); fat suppression in one of the two, which mostly changes the scalp, gave 4 or more."""

_STEP_MM = 2  # voxel size of the grid of the comparison
_SMOOTHING_MM = 2.5  # standard deviation; equalises series of different sharpness
_CLEARLY = 0.25  # clearly brighter: by a quarter, and by a quarter of the tissue's level
_OUTER_MM = 12.0  # skin, scalp fat and the skull's marrow: bright, thin, and the first to differ when the head moves
_LEAST_HEAD_ML = 500.0
_AIR = 0.6  # fraction of the threshold between air and tissue; low, since bone and fluid belong to the head
_CLOSING_STEPS = 4
_FIELD_ORDER = 3  # order of the polynomial that models gain and receive field
_FIELD_SAMPLES = 60_000
_FIELD_ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Brightening:
    """Shares (0..1) of the inner head in which one image is clearly brighter, or darker, than the other.

    ``outer_brighter`` and ``outer_darker`` are the same shares of the outermost 12 mm of the head.
    """

    brighter: float
    darker: float
    outer_brighter: float
    outer_darker: float

    @property
    def reverse(self) -> Brightening:
        """The same comparison with the two images exchanged."""
        return Brightening(self.darker, self.brighter, self.outer_darker, self.outer_brighter)

    @property
    def is_strong(self) -> bool:
        """Whether the brighter share is large, and much larger than the darker one."""
        return self.brighter >= LEAST_SHARE and self.brighter >= LEAST_RATIO * self.darker

    @property
    def is_superficial(self) -> bool:
        """Whether the brighter voxels lie mostly near the surface, where the fat is."""
        return self.outer_brighter > LARGEST_SURFACE_RATIO * self.brighter

    @property
    def is_enhancement(self) -> bool:
        """Whether the first image shows contrast agent that the second lacks."""
        return self.is_strong and not self.is_superficial


def compare_enhancement(one: Series, other: Series) -> Comparison:
    """Decide which of two T1-weighted series of one head was acquired after contrast agent, or leave it undecided.

    Exchanging the two exchanges the result exactly. Series that cannot be read or registered stay undecided, with that
    reason.
    """
    first, second = sorted((one, other), key=lambda series: series.series_instance_uid)
    try:
        images = [read_volume(series).image for series in (first, second)]
        found = brightening(images[0], images[1], (first.label, second.label))
    except RefusedError as error:
        return Comparison(None, f"images: {one.label} and {other.label} cannot be compared: {error}")
    if found.darker > found.brighter:
        first, second, found = second, first, found.reverse
    evidence = (
        f"images: {found.brighter:.2%} of the head is brighter by a quarter in {first.label} than in {second.label}, "
        f"{found.darker:.2%} darker"
    )
    if found.is_enhancement:
        return Comparison("one" if first is one else "other", evidence)
    doubt = "near the surface above all, as fat suppression makes it" if found.is_strong else "no clear enhancement"
    return Comparison(None, f"{evidence}: {doubt}")


def brightening(one: sitk.Image, other: sitk.Image, names: Sequence[str] = ("one", "other")) -> Brightening:
    """How much of the head is brighter or darker in ``one`` than in ``other``, after registration and with gain and
    receive field removed.

    Args:
        one: LPS image of a head, on any grid, like ``other``.
        names: names of the two images in an error.

    Raises:
        ContentRefused: an image is empty, or the images have too little of one head in common.
        GeometryRefused: the two cannot be registered.
    """
    if np.prod(one.GetSpacing()) < np.prod(other.GetSpacing()):  # the coarser image is the fixed one
        return brightening(other, one, (names[1], names[0])).reverse
    fine = common_grid(one)
    transform = align_rigid(to_grid(one, fine), other, names[1], names[0])
    grid = _coarse(fine)
    seen = field_of_view(one, grid) & field_of_view(other, grid, transform)
    a = _smooth(to_grid(one, grid), seen)
    b = _smooth(to_grid(other, grid, transform), seen)
    tissue_a, tissue_b = (_tissue_threshold(values, seen, name) for values, name in zip((a, b), names, strict=True))
    head = _head((a > _AIR * tissue_a) | (b > _AIR * tissue_b), seen)
    both = head & (a > tissue_a) & (b > tissue_b)
    if head.sum() * _STEP_MM**3 / 1000 < _LEAST_HEAD_ML or both.sum() * _STEP_MM**3 / 1000 < _LEAST_HEAD_ML / 2:
        raise ContentRefused(f"{names[0]} and {names[1]} show too little of one head in common")
    half = np.exp(_log_field(a, b, both) / 2)
    a, b = a / half, b * half
    level = np.median(np.sqrt(a[both] * b[both]))
    return _shares(a / level, b / level, head)


def _coarse(fine: sitk.Image) -> sitk.Image:
    """An empty image that covers ``fine`` (1 mm) with voxels of the comparison's size."""
    grid = sitk.Image([-(-n // _STEP_MM) for n in fine.GetSize()], sitk.sitkUInt8)
    grid.SetSpacing([float(_STEP_MM)] * 3)
    grid.SetOrigin(fine.TransformContinuousIndexToPhysicalPoint([(_STEP_MM - 1) / 2] * 3))
    return grid


def _smooth(image: sitk.Image, seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``[z, y, x]``, smoothed, without negative values; the edge of the common field of view darkens both alike."""
    values = np.where(seen, np.maximum(sitk.GetArrayFromImage(image).astype(np.float64), 0.0), 0.0)
    smooth: NDArray[np.float64] = ndimage.gaussian_filter(values, _SMOOTHING_MM / _STEP_MM)
    return smooth


def _tissue_threshold(values: NDArray[np.float64], seen: NDArray[np.bool_], name: str) -> float:
    """Threshold between air and tissue (Otsu 1979)."""
    inside = values[seen]
    highest = np.percentile(inside, 99.5) if inside.size else 0.0
    if highest <= 0.0:
        raise ContentRefused(f"{name} is empty where the two overlap")
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(np.minimum(inside, highest)[None, None, :]))
    return float(otsu.GetThreshold())


def _head(tissue: NDArray[np.bool_], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest component of tissue, with its cavities."""
    pieces = sitk.GetImageFromArray((tissue & seen).astype(np.uint8))
    closed = sitk.BinaryMorphologicalClosing(pieces, [_CLOSING_STEPS] * 3)
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(closed)) == 1
    head: NDArray[np.bool_] = (sitk.GetArrayFromImage(sitk.BinaryFillhole(largest)) > 0) & seen
    return head


def _log_field(a: NDArray[np.float64], b: NDArray[np.float64], both: NDArray[np.bool_]) -> NDArray[np.float64]:
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


def _shares(a: NDArray[np.float64], b: NDArray[np.float64], head: NDArray[np.bool_]) -> Brightening:
    """Shares of the head in which a voxel is clearly brighter than the whole neighbourhood in the other image.

    The neighbourhood keeps edges that moved from counting.
    """
    brighter, darker = _clearly_brighter(a, b), _clearly_brighter(b, a)
    depth_mm = ndimage.distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1, 1:-1] * _STEP_MM
    inner, outer = depth_mm > _OUTER_MM, head & (depth_mm <= _OUTER_MM)
    if not inner.any():
        raise ContentRefused("what both show is nowhere deeper than the outer layers of a head")
    return Brightening(*(float(mask[part].mean()) for part in (inner, outer) for mask in (brighter, darker)))


def _clearly_brighter(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    around = ndimage.maximum_filter(b, 3)
    brighter: NDArray[np.bool_] = (a - around > _CLEARLY) & (a > (1 + _CLEARLY) * around)
    return brighter
