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

from node.errors import ContentRefused, RefusedError
from node.segmentation.align import align_rigid
from node.segmentation.grid import common_grid, field_of_view, to_grid
from node.segmentation.intensity_match import (
    AIR,
    LEAST_HEAD_ML,
    STEP_MM,
    at_one_level,
    clearly_brighter,
    coarse_grid,
    head_of,
    inner_of,
    smooth,
    tissue_threshold,
)
from node.segmentation.uptake import compare_with_twins
from node.segmentation.volume import read_volume
from node.study import Comparison, Series

LEAST_SHARE = 0.005
"""Least share of the inner head that must be brighter. Whole heads with contrast agent had 0.012 to 0.044; the same
head again, moved, blurred, noisy, cropped or with another receive field, had at most 0.00001."""

LARGEST_SHARE = 0.1
"""Largest share of the inner head that contrast agent brightens: it had at most 0.05. Where more is brighter, the
tissues have other weights: the same head without contrast agent, its intensities raised to the power 2.5 as an extreme
of another kind of sequence, had 0.37 to 0.51."""

LEAST_RATIO = 8.0
"""Least ratio of the brighter to the darker share. Pairs before and after contrast agent that were acquired alike had
14 or more; two different sequences, both after contrast agent, had 2."""

LARGEST_SURFACE_RATIO = 2.0
"""Largest ratio of the brighter share of the outer head to that of the inner head. Contrast agent gave 0.01 to 0.9
(skull-stripped 1.6); fat suppression in one of the two, which mostly changes the scalp, gave 4 or more."""


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
        """Whether the brighter share is that of contrast agent, and much larger than the darker one."""
        return LEAST_SHARE <= self.brighter <= LARGEST_SHARE and self.brighter >= LEAST_RATIO * self.darker

    @property
    def is_superficial(self) -> bool:
        """Whether the brighter voxels lie mostly near the surface, where the fat is."""
        return self.outer_brighter > LARGEST_SURFACE_RATIO * self.brighter

    @property
    def is_enhancement(self) -> bool:
        """Whether the first image shows contrast agent that the second lacks."""
        return self.is_strong and not self.is_superficial


def compare_enhancement(one: Series, other: Series, twin: Series | None = None, /) -> Comparison:
    """Decide which of two T1-weighted series of one head was acquired after contrast agent, or leave it undecided.

    Exchanging the two exchanges the result exactly. Series that cannot be read or registered stay undecided, with that
    reason. ``twin``: acquired like ``other``, but after contrast agent; then ``one`` is found to be after it, or is
    left undecided.
    """
    if twin is not None:
        return compare_with_twins(one, other, twin)
    first, second = sorted((one, other), key=lambda series: series.key)
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
    grid = coarse_grid(fine)
    seen = field_of_view(one, grid) & field_of_view(other, grid, transform)
    a = smooth(to_grid(one, grid), seen)
    b = smooth(to_grid(other, grid, transform), seen)
    tissue_a, tissue_b = (tissue_threshold(values, seen, name) for values, name in zip((a, b), names, strict=True))
    head = head_of((a > AIR * tissue_a) | (b > AIR * tissue_b), seen)
    both = head & (a > tissue_a) & (b > tissue_b)
    if head.sum() * STEP_MM**3 / 1000 < LEAST_HEAD_ML or both.sum() * STEP_MM**3 / 1000 < LEAST_HEAD_ML / 2:
        raise ContentRefused(f"{names[0]} and {names[1]} show too little of one head in common")
    return _shares(*at_one_level(a, b, both), head)


def _shares(a: NDArray[np.float64], b: NDArray[np.float64], head: NDArray[np.bool_]) -> Brightening:
    """Shares of the head in which a voxel is clearly brighter than the whole neighbourhood in the other image.

    The neighbourhood keeps edges that moved from counting.
    """
    brighter, darker = clearly_brighter(a, b), clearly_brighter(b, a)
    inner = inner_of(head)
    outer = head & ~inner
    if not inner.any():
        raise ContentRefused("what both show is nowhere deeper than the outer layers of a head")
    return Brightening(*(float(mask[part].mean()) for part in (inner, outer) for mask in (brighter, darker)))
