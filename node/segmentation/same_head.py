"""Whether all contrasts show one head, the same way round.

After registration, the folds of one brain coincide in all contrasts, which mutual information of the local contrasts
shows, whatever the weighting. A series of another head shares none of them. A series mirrored left to right shares
them only after it has been mirrored back: brains are asymmetric enough for that. An exam that is mirrored as a whole
cannot be told from a proper one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.segmentation.align import align_coarse
from node.segmentation.local_contrast import CoarseExam, Mask, Volume, local_contrast, ranks
from node.study import Contrast

_BINS = 20

TRIED_BELOW = 0.11
"""A contrast is mirrored and registered again only if it resembles no other one more than this, since that takes a
second. Contrasts that do not belong to their exam had 0.08 at most."""

Similarities = Mapping[frozenset[Contrast], float]


@dataclass(frozen=True, slots=True)
class Fit:
    """How well one contrast fits the others, as it is and mirrored left to right.

    Attributes:
        contrast: the contrast.
        best: its similarity with the contrast that it resembles most.
        ratio: sum of its similarities with all others, over the same sum for its mirror image: about 1 for another
            head, for which neither is right.
        mirrored: the latter sum.
    """

    contrast: Contrast
    best: float
    ratio: float
    mirrored: float


def similarities(exam: CoarseExam) -> dict[frozenset[Contrast], float]:
    """Mutual information of the local contrasts of each pair, in units of the greatest possible: 0..1."""
    placed = {contrast: _binned(exam.inner_values(contrast)) for contrast in exam.local}
    return {
        frozenset((one, other)): _mutual_information(placed[one], placed[other])
        for one, other in itertools.combinations(placed, 2)
    }


def doubtful_fits(exam: CoarseExam, similarity: Similarities) -> Iterator[Fit]:
    """The fit of each contrast whose similarity with every other one is low, so that a mirror image is tried."""
    if len(exam.local) < 2:
        return
    for contrast in exam.local:
        best = max(value for pair, value in similarity.items() if contrast in pair)
        if best < TRIED_BELOW:
            plain = sum(value for pair, value in similarity.items() if contrast in pair)
            mirrored = _mirrored_similarity(exam, contrast)
            yield Fit(contrast, best, plain / max(mirrored, 1e-6), mirrored)


def _mirrored_similarity(exam: CoarseExam, contrast: Contrast) -> float:
    """Sum of the similarities with the other contrasts once ``contrast`` is mirrored and registered again."""
    others = [each for each in exam.local if each is not contrast]
    fixed = Contrast.T1C if Contrast.T1C in others else others[0]
    inside = limited(exam.signal[contrast], exam.brain)[:, :, ::-1]
    brain = exam.brain[:, :, ::-1].astype(np.float32)
    signal, seen = align_coarse(limited(exam.signal[fixed], exam.brain), inside, brain)
    both = exam.brain & (seen > 0.5)
    if not both.any():
        return 0.0
    inner = exam.inner & both
    local = local_contrast(signal, both)
    mirrored = _binned(local[inner])
    return sum(_mutual_information(mirrored, _binned(exam.local[each][inner])) for each in others)


def limited(signal: Volume, brain: Mask) -> Volume:
    """``signal`` in the brain, limited so that a few vessels do not use up the histogram of the registration."""
    limited: Volume = np.minimum(np.where(brain, signal, 0), np.percentile(signal[brain], 99.5)).astype(np.float32)
    return limited


def _binned(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """The bin of each value; all bins hold equally many."""
    binned: NDArray[np.int64] = np.minimum((ranks(values) * _BINS).astype(np.int64), _BINS - 1)
    return binned


def _mutual_information(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    joint = np.bincount(one * _BINS + other, minlength=_BINS**2).reshape(_BINS, _BINS) / one.size
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / apart[filled])).sum() / np.log(_BINS))
