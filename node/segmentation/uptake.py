"""Whether a series of another kind is after contrast agent, judged by two twins of which one is.

Sequences of different kinds differ in more than contrast agent. But two twins, one after contrast agent, show where
this patient takes it up: in vessels, mucosa, choroid plexus, tumour. A third series of whatever kind is after contrast
agent if that tissue is brighter in it than other tissue that the twin before contrast agent shows equally bright.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

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
    log_field,
    smooth,
    tissue_threshold,
)
from node.segmentation.volume import read_volume
from node.study import Comparison, Series

LEAST_BRIGHTEST = 0.9
"""Least share of the tissue with uptake that is among the brightest tenth of like tissue in a third series. A 3-D
gradient echo after contrast agent had 0.98 where the twins were spin echoes; series before it, with their contrast
distorted as another kind of sequence would, had at most 0.58, and FLAIR and T2 less."""

LEAST_UPTAKE_ML = 3.0
"""Least volume of that tissue; skull-stripped heads with a small enhancing tumour have less."""

_MEDIUM = (0.7, 1.3)  # of the tissue's level: neither fat nor flowing blood
_BINS = 10  # of equally many voxels by brightness
_BRIGHTEST = 0.9  # quantile


def compare_with_twins(one: Series, before: Series, after: Series) -> Comparison:
    """Decide whether ``one`` was acquired after contrast agent, as ``after`` was and its like ``before`` was not.

    The answer is "one" or None: that it was acquired before contrast agent is never concluded.
    """
    try:
        images = [read_volume(series).image for series in (one, before, after)]
        share, volume_ml = uptake(images[0], images[1], images[2], (one.label, before.label, after.label))
    except RefusedError as error:
        return Comparison(None, f"images: {one.label} cannot be compared with two others: {error}")
    evidence = (
        f"images: of {volume_ml:.0f} mL that take up contrast agent between {before.label} and {after.label}, "
        f"{share:.0%} are among the brightest tenth of like tissue in {one.label}"
    )
    if volume_ml < LEAST_UPTAKE_ML:
        return Comparison(None, f"{evidence}: too little to tell")
    return Comparison("one", evidence) if share >= LEAST_BRIGHTEST else Comparison(None, f"{evidence}: not clear")


def uptake(
    one: sitk.Image,
    before: sitk.Image,
    after: sitk.Image,
    names: Sequence[str] = ("one", "before", "after"),
) -> tuple[float, float]:
    """Whether ``one`` is brightest where contrast agent is taken up between its like ``before`` and ``after``.

    Only tissue of medium brightness before contrast agent counts: flowing blood may be dark in one sequence and bright
    in another without any contrast agent.

    Args:
        one: LPS image of the same head, of any T1-weighted sequence.
        before: LPS image, on any grid, like ``after``.
        after: an image acquired like ``before``, but after contrast agent.
        names: names of the three images in an error.

    Returns:
        (share, volume): of the tissue that takes up contrast agent, the share (0..1) that is brighter in ``one`` than
        nine tenths of the other tissue of equal brightness in ``before``, and the volume in mL.

    Raises:
        ContentRefused: an image is empty, or the images have too little of one head in common.
        GeometryRefused: the images cannot be registered.
    """
    fine = common_grid(before)
    base, grid = to_grid(before, fine), coarse_grid(fine)
    moved = {name: align_rigid(base, image, name, names[1]) for name, image in ((names[0], one), (names[2], after))}
    seen = field_of_view(before, grid)
    seen &= field_of_view(one, grid, moved[names[0]]) & field_of_view(after, grid, moved[names[2]])
    b = smooth(to_grid(before, grid), seen)
    a = smooth(to_grid(after, grid, moved[names[2]]), seen)
    c = smooth(to_grid(one, grid, moved[names[0]]), seen)
    limits = [tissue_threshold(v, seen, name) for v, name in zip((c, b, a), names, strict=True)]
    head = head_of((b > AIR * limits[1]) | (a > AIR * limits[2]), seen)
    every = head & (c > limits[0]) & (b > limits[1]) & (a > limits[2])
    if every.sum() * STEP_MM**3 / 1000 < LEAST_HEAD_ML / 2:
        raise ContentRefused(f"{', '.join(names)} show too little of one head in common")
    a, b = at_one_level(a, b, every)
    c = c / np.exp(log_field(c, b, every))
    return _share_of_brightest(c, b, clearly_brighter(a, b), inner_of(head))


def _share_of_brightest(
    c: NDArray[np.float64], b: NDArray[np.float64], brighter: NDArray[np.bool_], inner: NDArray[np.bool_]
) -> tuple[float, float]:
    """(share of the ``brighter`` tissue whose ``c`` exceeds nine tenths of other tissue of like ``b``, its mL)."""
    medium = inner & (b > _MEDIUM[0]) & (b < _MEDIUM[1])
    tissue, others = medium & brighter, medium & ~ndimage.binary_dilation(brighter, iterations=2)
    if not tissue.any() or not others.any():
        return 0.0, 0.0
    edges = np.quantile(b[others], np.linspace(0, 1, _BINS + 1))
    place = np.clip(np.searchsorted(edges, b, side="right") - 1, 0, _BINS - 1)
    limits = np.array([np.quantile(c[others & (place == index)], _BRIGHTEST) for index in range(_BINS)])
    return float((c[tissue] > limits[place[tissue]]).mean()), float(tissue.sum() * STEP_MM**3 / 1000)
