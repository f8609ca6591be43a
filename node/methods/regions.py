"""Binary morphology and component rules of the cascade, as in the released test code of Wang et al. 2017.

All arrays are boolean ``[z, y, x]``. Components and closing use the 18-neighbourhood. For inputs on which the released
code fails (it raises, or compares arrays of unequal length), the docstring gives the rule defined here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.errors import ContentRefused
from node.methods.contract import Mask

Box = tuple[slice, slice, slice]

MARGIN_VOXELS = 5
SMALL_COMPONENT_VOXELS = 2000
_STRUCTURE = ndimage.generate_binary_structure(3, 2)


def closing(mask: Mask) -> Mask:
    """Binary closing, one iteration. Outside counts as background, so the outermost voxel layer is always cleared."""
    closed: Mask = ndimage.binary_closing(mask, structure=_STRUCTURE)
    return closed


def bounding_box(mask: Mask, margin: int = MARGIN_VOXELS) -> Box:
    """Smallest box around ``mask``, enlarged by ``margin`` voxels and clipped to the array.

    Raises:
        ContentRefused: ``mask`` is empty.
    """
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise ContentRefused("nothing to put a box around: the region is empty")
    low_high = zip(found[0], mask.shape, strict=True)
    z, y, x = (slice(max(s.start - margin, 0), min(s.stop + margin, size)) for s, size in low_high)
    return z, y, x


def _components(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Component labels, and the size of each label (index 0: background, set to 0)."""
    labels, _ = ndimage.label(mask, _STRUCTURE)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes


def keep_above(mask: Mask, threshold: int = SMALL_COMPONENT_VOXELS) -> Mask:
    """Components of more than ``threshold`` voxels; a single component is kept whatever its size.

    Defined here: of several components, none above the threshold, the largest is kept (the released code raises later).
    """
    labels, sizes = _components(mask)
    if len(sizes) <= 2:
        return mask
    keep = sizes > threshold
    if not keep.any():
        keep[int(sizes.argmax())] = True
    kept: Mask = keep[labels]
    return kept


def keep_two(mask: Mask) -> Mask:
    """The largest component, and the second largest if it has more than a tenth of the largest's voxels.

    Defined here: of components equal in size, the one found first counts as larger (the released code fails).
    """
    labels, sizes = _components(mask)
    if len(sizes) <= 2:
        return mask
    first, second = np.argsort(-sizes, kind="stable")[:2]
    keep = np.zeros(len(sizes), dtype=bool)
    keep[first] = True
    keep[second] = 10 * sizes[second] > sizes[first]
    kept: Mask = keep[labels]
    return kept


def keep_inside(mask: Mask, main: Mask) -> Mask:
    """Components of ``mask`` of which at least half the voxels lie in ``main``."""
    labels, sizes = _components(mask)
    inside = np.bincount(labels[main].ravel(), minlength=len(sizes))
    keep = 2 * inside >= sizes
    keep[0] = False
    kept: Mask = keep[labels]
    return kept
