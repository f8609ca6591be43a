"""The lie detector: what the images of an exam say against what it is taken for, before the networks run.

Each check has two limits: beyond the outer one the study is refused, beyond the inner one the report bears a caution.
``glionode bench plausibility`` measures how often each finds the lie, and how often it doubts an honest exam
(docs/accuracy.md, "Lies that are found, and how often").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node.errors import ContentRefused
from node.segmentation.local_contrast import CoarseExam, Mask, coarse_exam
from node.segmentation.mask_check import mask_findings
from node.segmentation.same_head import Fit, Similarities, doubtful_fits, similarities
from node.segmentation.swapped import exchanges, likeliest_pair
from node.study import Contrast

LARGEST_MIRRORED_RATIO = 0.75
"""A contrast that fits its exam this much less than its own mirror image does is mirrored. Honest contrasts of 27 exams
had 1.96 or more, mirrored ones 0.6 or less."""

LEAST_MIRRORED_SUM = 0.05
"""A mirror image must also have this much in common with the other contrasts, all similarities added; honest contrasts
have 0.079 or more. Two chance similarities next to 0 may have any ratio."""

LARGEST_STRANGE_RATIO = 1.4
"""Up to this ratio a contrast fits hardly better than its mirror image, so it shows another head."""

STRANGE_SIMILARITY = 0.04
"""A strange contrast is refused if it resembles no other contrast more than this; honest pairs had 0.029 to 0.59, and
those below 0.1 had ratios of 1.96 or more."""

LEAST_SIMILARITY = 0.022
"""A contrast that resembles no other more than this is never silent. Honest ones had 0.029 or more; three of another
head, with a ratio that chance had made 1.5 to 1.7, had 0.008 to 0.019."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: ``is_refusal`` if the study must be refused; ``text`` is a sentence for the reader."""

    is_refusal: bool
    text: str


def check_plausible(
    volumes_zyx: Mapping[Contrast, NDArray[np.floating]],
    brain_zyx: Mask,
    seen_zyx: Mapping[Contrast, Mask],
    names: Mapping[Contrast, str],
) -> tuple[str, ...]:
    """The cautions of all checks on an exam whose contrasts lie on one grid.

    Args:
        volumes_zyx: the contrasts at hand on one LPS grid of 1 mm, registered, not skull-stripped.
        brain_zyx: the brain mask on that grid.
        seen_zyx: the field of view of each contrast on that grid.
        names: how each contrast's series is named to a human.

    Raises:
        ContentRefused: a check found what makes any result wrong; the text says what, and of which series.
    """
    seen = brain_zyx.copy()
    for mask in seen_zyx.values():
        seen &= mask
    found = findings(coarse_exam(volumes_zyx, seen, names))
    refusals = [each.text for each in found if each.is_refusal]
    if refusals:
        raise ContentRefused("; ".join(refusals))
    return tuple(each.text for each in found)


def findings(exam: CoarseExam) -> list[Finding]:
    """What the checks find. A series that is not of this head, or mirrored, makes all further comparison void.

    The limits were measured on exams with all four contrasts. With fewer, what the contrasts have in common gives
    cautions and refuses nothing, and nothing is said of exchanged names.
    """
    similarity = similarities(exam)
    if len(exam.local) < len(Contrast):
        doubts = [replace(each, is_refusal=False) for each in _of_head(exam, similarity)]
        return [*doubts, *(Finding(False, text) for text in mask_findings(exam))]
    found = _of_head(exam, similarity) or list(_of_names(exam, similarity))
    return [*found, *(Finding(False, text) for text in mask_findings(exam))]


def _of_head(exam: CoarseExam, similarity: Similarities) -> list[Finding]:
    """At most one finding: if one contrast does not fit, the others fit it as little as it fits them."""
    fits = list(doubtful_fits(exam, similarity))
    if not fits:
        return []
    mirrored = [fit for fit in fits if fit.ratio <= LARGEST_MIRRORED_RATIO and fit.mirrored >= LEAST_MIRRORED_SUM]
    if mirrored:
        worst = min(mirrored, key=lambda fit: fit.ratio)
        return [Finding(True, f"{_named(exam, worst)} is mirrored left to right against the other series")]
    strange = [fit for fit in fits if fit.ratio <= LARGEST_STRANGE_RATIO]
    if strange:
        return [_stranger(exam, min(strange, key=lambda fit: fit.best))]
    faint = min(fits, key=lambda fit: fit.best)
    if faint.best < LEAST_SIMILARITY:
        return [Finding(False, f"{_named(exam, faint)} has little in common with the other series; compare them")]
    return []


def _stranger(exam: CoarseExam, fit: Fit) -> Finding:
    if fit.best < STRANGE_SIMILARITY:
        return Finding(True, f"{_named(exam, fit)} does not show the head that the other series show")
    return Finding(False, f"{_named(exam, fit)} may not show the head that the other series show; compare them")


def _named(exam: CoarseExam, fit: Fit) -> str:
    return f"{exam.names[fit.contrast]} ({fit.contrast})"


def _of_names(exam: CoarseExam, similarity: Similarities) -> Iterator[Finding]:
    """At most one finding: the pair whose exchange explains all measures best."""
    every = list(exchanges(exam, similarity))
    if all(one.fit >= one.caution_below for one in every):
        return
    first, second = (f"{exam.names[each]} ({each})" for each in likeliest_pair(exam, similarity))
    if any(one.fit < one.refuse_below for one in every):
        yield Finding(
            True, f"by their images, {first} and {second} are exchanged: their names contradict what they show"
        )
    else:
        yield Finding(False, f"by their images, {first} and {second} may be exchanged; look at both")
