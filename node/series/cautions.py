"""Cautions on a selection: data below the method's requirements, and decisions that rest on weak evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from node.series.by_hand import EVIDENCE
from node.series.candidate import Candidate
from node.series.ranking import SURE, WHOLE_BRAIN_MM, shortfall_of
from node.series.twins import SESSION
from node.study import Contrast


def cautions_on(chosen: Mapping[Contrast, Candidate], candidates: Sequence[Candidate]) -> list[str]:
    """The cautions on the ``chosen`` series, one sentence each; ``candidates`` are all series of the study."""
    cautions: list[str] = []
    for contrast, one in chosen.items():
        name = f"{contrast} ({one.series.label})"
        cautions += [f"{name}{text}" for text in (*_of_images(contrast, one), *_of_words(one))]
        if one.is_by_hand:
            cautions.append(f"{name} was {EVIDENCE}")
    t1 = chosen.get(Contrast.T1)
    if t1 and not t1.is_by_hand:
        cautions += _of_plain_t1(t1, candidates)
    return cautions + _of_times(chosen)


def _of_images(contrast: Contrast, one: Candidate) -> list[str]:
    if one.facts is None:
        return []
    short, coverage = shortfall_of(contrast, one.facts), one.facts.coverage_mm
    texts = [f": {short}"] if short else []
    if coverage is not None and coverage < WHOLE_BRAIN_MM:
        texts.append(f": covers only {coverage:.0f} mm; part of the brain may be missing")
    if one.facts.is_derived:
        texts.append(" is a derived image (Image Type): computed from others")
    return texts


def _of_words(one: Candidate) -> list[str]:
    found = one.classification
    return [f" was recognised with low confidence: {found.evidence[-1]}"] if found.confidence < SURE else []


def _of_plain_t1(t1: Candidate, candidates: Sequence[Candidate]) -> list[str]:
    """Caution if the T1 was inferred from other series' marks only, or if an undecided twin of it was not used."""
    name = f"T1 ({t1.series.label})"
    for other in candidates:
        if other is t1 or other.contrast is not Contrast.T1:
            continue
        if other.is_undecided and _is_earlier(other, t1) is not True:
            return [f"{name}: {other.series.label} may be before or after contrast, and was not used"]
        if t1.is_inferred and other.excluded is None and _is_earlier(other, t1) is not False:
            return [
                f"{name} bears no mark of contrast agent: that it is before contrast follows only from the marks of "
                f"others, and {other.series.label} may be the earlier one"
            ]
    return []


def _is_earlier(one: Candidate, other: Candidate) -> bool | None:
    """Whether ``one`` was acquired before ``other``; None if a time is not known."""
    moments = [each.facts and each.facts.acquisition_datetime for each in (one, other)]
    return moments[0] < moments[1] if moments[0] and moments[1] else None


def _of_times(chosen: Mapping[Contrast, Candidate]) -> list[str]:
    """Caution if the chosen series are hours apart: two examinations show two states of one brain."""
    moments = sorted(
        (one.facts.acquisition_datetime, contrast)
        for contrast, one in chosen.items()
        if one.facts and one.facts.acquisition_datetime
    )
    if not moments or moments[-1][0] - moments[0][0] <= SESSION:
        return []
    (first, earlier), (last, later) = moments[0], moments[-1]
    times = f"{earlier} was acquired {first:%Y-%m-%d %H:%M}, {later} {last:%Y-%m-%d %H:%M}"
    return [f"the chosen series are hours apart: {times}"]
