"""Rank several series of one contrast by criteria in a fixed order, and check the method's data requirements."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from node.series.facts import SeriesFacts
from node.series.marker import Marker
from node.series.words import Classification
from node.study import Contrast, Series

WHOLE_BRAIN_MM = 120.0
VOLUME_STEP_MM = 2.0
T1_STEP_MM = 1.5
T2_STEP_MM = 3.0
SURE = 0.8


@dataclass(frozen=True, slots=True)
class Entry:
    """One series that competes for a contrast.

    ``in_frame``: in the T1c's frame of reference (for the T1c: in one that every contrast has); ``in_session``: not
    hours apart from the T1c; ``agent``: a FLAIR is before or after contrast agent.
    """

    contrast: Contrast
    series: Series
    facts: SeriesFacts
    classification: Classification
    in_frame: bool
    in_session: bool = True
    agent: Marker | None = None


def _criteria(entry: Entry) -> list[tuple[float, str]]:
    """(value, its text) of each criterion, most important first: the first difference decides, higher is better."""
    contrast, series, facts, classification = entry.contrast, entry.series, entry.facts, entry.classification
    step, coverage = facts.step_mm, facts.coverage_mm
    is_volume = facts.mr_acquisition_type != "2D" and step is not None and step <= VOLUME_STEP_MM
    wants_volume = contrast in (Contrast.T1, Contrast.T1C)
    moment, is_sure = facts.acquisition_datetime, classification.confidence >= SURE
    slices = "slice distance unknown" if step is None else f"{step:.3g} mm slices"
    is_fine = step is None or step <= T2_STEP_MM
    wants_no_agent = contrast is Contrast.FLAIR
    return [
        (float(entry.in_frame), "common frame of reference" if entry.in_frame else "another frame of reference"),
        (float(entry.in_session), "of one session" if entry.in_session else "hours apart"),
        (float(is_sure), "words clear" if is_sure else "words unsure"),
        (float(not facts.is_derived), "derived" if facts.is_derived else "original"),
        (float(is_volume and wants_volume), f"3-D with {slices}" if is_volume else f"slice by slice, {slices}"),
        (
            float(coverage is None or coverage >= WHOLE_BRAIN_MM),
            "coverage unknown" if coverage is None else f"covers {coverage:.0f} mm",
        ),
        (float(is_fine or not wants_no_agent), slices),
        (
            float(entry.agent != "after" or not wants_no_agent),
            "after contrast agent" if entry.agent == "after" else "not after contrast agent",
        ),
        (-round(step, 1) if step is not None else -99.0, slices),
        (round(coverage or 0.0, -1), "coverage unknown" if coverage is None else f"covers {coverage:.0f} mm"),
        (
            float(entry.agent == "before" or not wants_no_agent),
            "before contrast agent" if entry.agent == "before" else "perhaps after contrast agent",
        ),
        (
            (moment - datetime.min).total_seconds() if moment else 0.0,
            f"acquired {moment:%H:%M:%S}" if moment else "time unknown",
        ),
        (float(series.series_number or 0), f"series number {series.series_number}"),
    ]


def rank(entry: Entry) -> tuple[tuple[float, ...], tuple[str, str]]:
    """Sort key: the best series has the greatest key. The UID makes the order total."""
    return tuple(value for value, _ in _criteria(entry)), entry.series.key


def first_difference(best: Entry, other: Entry) -> tuple[str, str]:
    """The criterion that decided between two series: the text for the better one and for the other."""
    for (value, text), (other_value, other_text) in zip(_criteria(best), _criteria(other), strict=True):
        if value != other_value:
            return text, other_text
    return "equal in all", "equal in all"


def shortfall_of(contrast: Contrast, facts: SeriesFacts) -> str | None:
    """How a series falls short of the data the method was trained on, or None."""
    step, is_t1 = facts.step_mm, contrast in (Contrast.T1, Contrast.T1C)
    limit = T1_STEP_MM if is_t1 else T2_STEP_MM
    wanted = "3-D near 1 mm isotropic" if is_t1 else f"slices of at most {limit:g} mm"
    if step is None:
        return f"distance between slices unknown; the method wants {wanted}"
    return f"slices every {step:.3g} mm; the method wants {wanted}" if step > limit else None
