"""Whether two contrasts are exchanged: what a series is called against what its images show.

Fluid tells the weightings apart: it is dark on T1 and T1c, bright on T2, dark on FLAIR. Where two series disagree most
about which voxel is bright, a third series shows whether fluid is at the bright or at the dark end. Each measure is
antisymmetric: if the two series are exchanged, it changes its sign and nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node.segmentation.local_contrast import CoarseExam, ranks
from node.study import Contrast

_EXTREMES = 0.03  # share of the voxels at each end of the disagreement
_BINS = 20
_LARGEST_DEVIATION = 8.0  # in units of the median deviation; a single vessel must not decide

FLUID_LIMITS = (0.1, -0.2)
"""Below the first a caution, below the second a refusal, for pairs that fluid tells apart. 27 honest exams had 0.34 or
more, and so their exchanged pairs -0.34 or less."""

LIKENESS_LIMITS = (-0.2, -math.inf)
"""The same for T1c and FLAIR, which only their likeness to T1 tells apart: honest exams had 0.34 or more. Never a
refusal, since a tumour that fills much of the brain changes it."""

UPTAKE_LIMITS = (-0.1, -math.inf)
"""The same for T1 and T1c: honest exams had 0.0 to 1.25. Never a refusal: a gradient echo before contrast agent may
have bright arteries where the spin echo after it has dark ones, and no such exam was at hand."""

Similarities = Mapping[frozenset[Contrast], float]

T1, T1C, T2, FLAIR = Contrast.T1, Contrast.T1C, Contrast.T2, Contrast.FLAIR


@dataclass(frozen=True, slots=True)
class Exchange:
    """How well two contrasts fit their names: about +1 if they do, about -1 if they are exchanged.

    Attributes:
        pair: the two contrasts.
        fit: the measure.
        caution_below, refuse_below: limits on it.
    """

    pair: tuple[Contrast, Contrast]
    fit: float
    caution_below: float
    refuse_below: float


def exchanges(exam: CoarseExam, similarity: Similarities) -> Iterator[Exchange]:
    """The measure of every pair of contrasts that ``exam`` can decide.

    Args:
        similarity: of each pair of contrasts, as `same_head.similarities` returns it.
    """
    ranked = {contrast: ranks(exam.inner_values(contrast)) for contrast in exam.local}
    by_both = (_fluid_order(ranked, T2, FLAIR, T1) + _fluid_order(ranked, T2, FLAIR, T1C)) / 2
    yield Exchange((T2, FLAIR), by_both, *FLUID_LIMITS)
    yield Exchange((T1, T2), _fluid_order(ranked, T2, T1, T1C), *FLUID_LIMITS)
    yield Exchange((T1C, T2), _fluid_order(ranked, T2, T1C, T1), *FLUID_LIMITS)
    yield Exchange((T1, FLAIR), _fluid_order(ranked, FLAIR, T1, T1C), *FLUID_LIMITS)
    likeness = math.log((similarity[frozenset((T1, T1C))] + 1e-6) / (similarity[frozenset((T1, FLAIR))] + 1e-6))
    yield Exchange((T1C, FLAIR), _fluid_order(ranked, FLAIR, T1C, T1) + likeness, *LIKENESS_LIMITS)
    yield Exchange((T1, T1C), uptake_order(exam, ranked), *UPTAKE_LIMITS)


def likeliest_pair(exam: CoarseExam, similarity: Similarities) -> tuple[Contrast, Contrast]:
    """The pair that is exchanged: with its names put right, the least measure of all pairs is the greatest.

    An exchanged pair disturbs the measures of other pairs as well, so the least of them need not be its own.
    """

    def least_if_right(pair: tuple[Contrast, Contrast]) -> float:
        names = {pair[0]: pair[1], pair[1]: pair[0]}
        local = {each: exam.local[names.get(each, each)] for each in exam.local}
        alike = {frozenset(names.get(each, each) for each in of): value for of, value in similarity.items()}
        return min(one.fit for one in exchanges(replace(exam, local=local), alike))

    return max(itertools.combinations(exam.local, 2), key=least_if_right)


def _fluid_order(
    ranked: Mapping[Contrast, NDArray[np.float64]], bright: Contrast, dark: Contrast, judge: Contrast
) -> float:
    """Rank in ``judge`` where ``dark`` is the brighter one, less the rank where ``bright`` is: fluid is dark there."""
    difference = ranked[bright] - ranked[dark]
    low, high = np.quantile(difference, (_EXTREMES, 1 - _EXTREMES))
    where_dark, where_bright = (
        float(np.median(ranked[judge][part])) for part in (difference <= low, difference >= high)
    )
    return where_dark - where_bright


def uptake_order(exam: CoarseExam, ranked: Mapping[Contrast, NDArray[np.float64]]) -> float:
    """Whether contrast agent is in the T1c rather than in the T1: positive if so.

    Of two independent signs, the weaker one: T1c has the longer bright tail; and where one of the two is brighter than
    the other explains, that one is T1c. Both must say "exchanged" for a strong answer.
    """
    tails = math.log(_bright_tail(exam.inner_values(T1C)) / _bright_tail(exam.inner_values(T1)))
    skew = _unexplained(exam, ranked, T1C, T1) - _unexplained(exam, ranked, T1, T1C)
    return tails if tails * skew > 0 else 0.0


def _bright_tail(values: NDArray[np.floating]) -> float:
    """Length of the bright tail in units of the dark half, which grey matter and fluid make."""
    low, middle, high = np.percentile(values, (10, 50, 99.5))
    return float(max(high - middle, 1e-6) / max(middle - low, 1e-6))


def _unexplained(
    exam: CoarseExam, ranked: Mapping[Contrast, NDArray[np.float64]], one: Contrast, other: Contrast
) -> float:
    """Skewness of what the brightness of ``other`` does not explain in ``one``."""
    values = exam.inner_values(one)
    place = np.minimum((ranked[other] * _BINS).astype(int), _BINS - 1)
    expected = np.array(
        [np.median(values[place == index]) if (place == index).any() else 0.0 for index in range(_BINS)]
    )
    rest = values - expected[place]
    scale = 1.4826 * float(np.median(np.abs(rest))) + 1e-9
    return float(np.mean(np.clip(rest / scale, -_LARGEST_DEVIATION, _LARGEST_DEVIATION) ** 3))
