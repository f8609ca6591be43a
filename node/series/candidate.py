"""A series under selection: its classification so far, and the reasons that exclude it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from node.series.body_part import is_other_body_part
from node.series.classify import DECIDED, classify_description
from node.series.facts import SeriesFacts
from node.series.marker import Marker
from node.series.vocabulary import Vocabulary
from node.series.words import Classification
from node.study import Contrast, Series, Verdict

NOT_USABLE = "not usable: "
MIN_SLICES = 8
MIN_COVERAGE_MM = 80.0  # smaller than any adult brain in any direction: a thinner slab cannot show the whole brain


@dataclass(slots=True)
class Candidate:
    """One series under selection; ``facts`` is None if its modality is not MR.

    ``excluded``: why the series cannot be used, or None; ``is_by_hand``: a user chose it; ``is_undecided``: whether it
    is before or after contrast stays open; ``may_compare``: a comparison with the images of a twin may decide that;
    ``is_inferred``: that it is before contrast follows only from the lack of any mark; ``is_elsewhere``: its header
    names another body part; ``agent``: whether a FLAIR is before or after contrast agent, as far as it is known.
    """

    series: Series
    facts: SeriesFacts | None
    classification: Classification
    contrast: Contrast | None
    evidence: list[str] = field(default_factory=list)
    excluded: str | None = None
    note: str = ""
    is_by_hand: bool = False
    is_undecided: bool = False
    may_compare: bool = False
    is_inferred: bool = False
    is_elsewhere: bool = False
    agent: Marker | None = None


def make_candidate(
    series: Series, facts: SeriesFacts | None, vocabulary: Vocabulary, ignored: Collection[str] = ()
) -> Candidate:
    """The candidate for ``series``, classified by its own description and header; ``ignored`` words mean nothing."""
    if facts is None:
        nothing = Classification(None, (), 0.0)
        return Candidate(
            series, None, nothing, None, [], f"modality {series.modality}", f"ignored: modality {series.modality}"
        )
    found = classify_description(series.series_description, facts, vocabulary, ignored)
    elsewhere = is_other_body_part(facts, vocabulary)
    excluded = f"Body Part Examined is {facts.body_part_examined}" if elsewhere else _exclusion(facts, found)
    return Candidate(series, facts, found, found.contrast, list(found.evidence), excluded, is_elsewhere=elsewhere)


def volume_problem(facts: SeriesFacts) -> str | None:
    """Why the images of a series do not make one volume, or None."""
    if facts.mixture:
        return f"{facts.mixture}: not one volume"
    if facts.images_per_position is not None and facts.images_per_position > 1:
        return f"holds {facts.images_per_position:.3g} images per slice position: not one volume"
    return facts.irregularity


def verdict(one: Candidate, *, is_chosen: bool) -> Verdict:
    """The verdict on a series, as it is reported."""
    note = one.note or (f"{NOT_USABLE}{one.excluded}" if one.excluded else "none of the four contrasts")
    if note.startswith("chosen") and not is_chosen:  # the study was refused for another contrast
        note = f"would be {note}"
    return Verdict(
        series_instance_uid=one.series.series_instance_uid,
        series_number=one.series.series_number,
        series_description=one.series.series_description,
        contrast=one.contrast,
        evidence=tuple(one.evidence),
        chosen=is_chosen,
        note=note,
        part=one.series.part,
    )


def _exclusion(facts: SeriesFacts, found: Classification) -> str | None:
    """Why a series of the right contrast cannot be used, or None."""
    if found.contrast is None:
        return None
    if found.elsewhere:
        return found.elsewhere
    if facts.is_phase and found.contrast in (Contrast.T1, Contrast.T1C):
        return "one phase of a dynamic series, in which the contrast agent arrives"
    if found.confidence < DECIDED:
        return found.contradicted or found.evidence[-1]
    reason = volume_problem(facts)
    if reason:
        return reason
    if facts.slice_count is not None and facts.slice_count < MIN_SLICES:
        return f"has only {facts.slice_count} slices"
    if facts.coverage_mm is not None and facts.coverage_mm < MIN_COVERAGE_MM:
        return f"covers only {facts.coverage_mm:.0f} mm: not the whole brain"
    return None
