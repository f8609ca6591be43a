"""Answers that are not the picture of one glioma: many separate enhancing lesions, or no tumour at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.methods.contract import ENHANCING

LEAST_TUMOUR_ML = 0.5
"""Less than this is no tumour that the method could claim: half of what RANO counts as measurable (10 mm) in volume."""

LEAST_LESION_ML, LEAST_LESIONS, LEAST_GAP_MM = 0.1, 3, 10.0
"""From so many enhancing lesions of that volume each, so far apart, the picture is rather that of metastases."""

_VOXEL_ML = 1e-3


def lesion_cautions(label_zyx: NDArray[np.uint8]) -> Iterator[str]:
    """Sentences on a BraTS label map ``[z, y, x]`` of 1 mm voxels."""
    found_ml = float((label_zyx > 0).sum()) * _VOXEL_ML
    if found_ml < LEAST_TUMOUR_ML:
        yield (
            f"no tumour was found ({found_ml:.2f} mL); "
            "the method is made for exams that show a glioma, and may miss a small one"
        )
        return
    lesions = separate_lesions(label_zyx == ENHANCING)
    if len(lesions) >= LEAST_LESIONS:
        yield (
            f"{len(lesions)} separate enhancing lesions, the largest with {max(lesions):.1f} of {sum(lesions):.1f} mL: "
            "consider metastases or a multifocal tumour; the method was made for single gliomas"
        )


def separate_lesions(enhancing_zyx: NDArray[np.bool_]) -> list[float]:
    """Volumes in mL of the lesions of at least `LEAST_LESION_ML`; parts less than `LEAST_GAP_MM` apart are one."""
    if not enhancing_zyx.any():
        return []
    parts, _ = ndimage.label(enhancing_zyx, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel()) * _VOXEL_ML
    sizes[0] = 0
    kept = (sizes >= LEAST_LESION_ML)[parts]
    if not kept.any():
        return []
    (box,) = ndimage.find_objects(kept.astype(np.uint8))
    small = np.pad(kept[box], int(LEAST_GAP_MM))
    near = ndimage.distance_transform_edt(~small) < LEAST_GAP_MM / 2
    groups, count = ndimage.label(near, np.ones((3, 3, 3)))
    return [float(each) * _VOXEL_ML for each in ndimage.sum_labels(small, groups, range(1, count + 1))]
