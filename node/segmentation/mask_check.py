"""Whether the brain mask holds a brain and nothing else: no skull, and no child's or animal's brain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from node.segmentation.local_contrast import STEP, CoarseExam
from node.study import Contrast

LARGEST_USUAL_ML = 2000.0
"""Masks of 27 honest exams hold 1,160 to 1,755 mL; those of raw exams, grown by 8 mm, 1,710 to 2,290 mL."""

LEAST_USUAL_ML = 900.0
"""Less than an adult's brain, even where a fifth of it is not seen: a child, an animal, or a part of a brain."""

LARGEST_VOID_SHARE = 0.01
"""Largest share of the mask, deeper than its border, without signal in any contrast. Bone and air are so; brain and
fluid are not. Masks of seven raw exams had up to 0.00001, of 20 skull-stripped ones up to 0.0085; grown by 12 mm into
the skull 0.006 to 0.018, of the whole head 0.022 to 0.036."""

_VOID = 0.4  # of the median of the brain
_SMOOTHING = 0.5  # coarse voxels


def mask_findings(exam: CoarseExam) -> Iterator[str]:
    """Doubts about the brain mask, in sentences."""
    volume_ml = float(exam.brain.sum()) * STEP**3 / 1000
    if volume_ml < LEAST_USUAL_ML:
        yield f"the brain found has {volume_ml:.0f} mL, less than an adult's: a child, an animal, or part of a brain"
    # fluid is bright in T2 alone: without it, ventricles are dark in every contrast, as bone is
    share = void_share(exam) if Contrast.T2 in exam.signal else 0.0
    if volume_ml > LARGEST_USUAL_ML or share > LARGEST_VOID_SHARE:
        yield f"the brain mask may hold skull: {volume_ml:.0f} mL, {share:.1%} of it without signal; check the outline"


def void_share(exam: CoarseExam) -> float:
    """Share of the inner mask (0..1) that is dark in every contrast."""
    void = exam.inner.copy()
    for signal in exam.signal.values():
        smooth = ndimage.gaussian_filter(signal, _SMOOTHING)
        void &= smooth < _VOID * np.median(signal[exam.inner])
    return float(void.sum() / exam.inner.sum())
