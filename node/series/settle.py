"""Names that the header must settle: several meanings, or a word for a technique that the images are not of.

A real localizer has few slices or three planes, so a "T1 scout" of 160 slices is a T1; of a dual echo the echo time
tells proton density from T2; "GE" beside T2 may name a vendor; and a single-shot T2 counts if it shows the whole brain.
What is settled so is less sure than other names, so that a series of a plain name goes before it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from node.series import physics
from node.series.facts import SeriesFacts
from node.series.vocabulary import Vocabulary
from node.series.words import BY_SEQUENCE, DUAL_ECHO, Classification, classify_words
from node.study import Contrast

LOCALIZER, SINGLE_SHOT = "localizer", "single shot"
BY_FACTS = 0.7
"""Confidence in a verdict that the header gives against a word."""

_LEAST_SLICES, _LEAST_COVERAGE_MM, _LARGEST_STEP_MM = 16, 120.0, 7.0
_VOLUME_SLICES, _VOLUME_STEP_MM = 100, 1.5  # the localizing volumes of scanners have 1.6 mm


def settle_by_facts(
    found: Classification, text: str, facts: SeriesFacts, vocabulary: Vocabulary, ignored: Collection[str]
) -> Classification:
    """``found``, the verdict by the words of ``text``, or the one that the header gives if these words are open."""
    if found.kind == DUAL_ECHO:
        return _by_echo_time(found, facts)
    is_mprage = physics.is_mprage(facts)
    if found.kind == LOCALIZER:
        other = classify_words(text, vocabulary, is_mprage, (*ignored, LOCALIZER))
        if other.contrast and _is_volume(other.contrast, facts):
            extent = f"{facts.slice_count} slices over {facts.coverage_mm:.0f} mm are none"
            return _settled(found, other, f"{found.evidence[0]}, but {extent}")
    if found.kind == SINGLE_SHOT:
        other = classify_words(text, vocabulary, is_mprage, (*ignored, SINGLE_SHOT))
        if other.contrast is Contrast.T2 and has_t2_timing(facts) and covers_brain(facts):
            return _settled(found, other, f"{found.evidence[0]}, but covers the brain")
    if found.kind == "unclear":
        other = classify_words(text, vocabulary, is_mprage, (*ignored, "gradient_echo"))
        if other.contrast is Contrast.T2 and physics.contrast_by_physics(facts) is Contrast.T2:
            return _settled(found, other, f"{found.evidence[0]}, but it is a spin echo")
    return found


def is_single_shot(facts: SeriesFacts, vocabulary: Vocabulary) -> bool:
    """True if Sequence Name (0018,0024) is that of a single-shot sequence (HASTE, SSFSE)."""
    return classify_words(facts.sequence_name or "", vocabulary).kind == SINGLE_SHOT


def covers_brain(facts: SeriesFacts) -> bool:
    """True if the header shows one stack of slices that covers a brain."""
    count, step, coverage = facts.slice_count, facts.step_mm, facts.coverage_mm
    is_one_stack = not (facts.mixture or facts.irregularity) and (facts.images_per_position or 1.0) <= 1.0
    is_known = count is not None and step is not None and coverage is not None
    return (
        is_one_stack
        and is_known
        and (count or 0) >= _LEAST_SLICES
        and (coverage or 0.0) >= _LEAST_COVERAGE_MM
        and (step or 0.0) <= _LARGEST_STEP_MM
    )


def has_t2_timing(facts: SeriesFacts) -> bool:
    """True if the echo is long and nothing is inverted; the repetition time of a single shot means little."""
    te = facts.echo_time_ms
    return (
        te is not None and te >= physics.LONG_TE_MS and not (facts.inversion_time_ms or physics.is_gradient_echo(facts))
    )


def _settled(found: Classification, other: Classification, evidence: str) -> Classification:
    return replace(
        other,
        evidence=(*other.evidence, evidence),
        confidence=min(other.confidence, BY_FACTS),
        marker=other.marker or found.marker,
    )


def _is_volume(contrast: Contrast, facts: SeriesFacts) -> bool:
    """True if the images are a whole brain of ``contrast`` and no localizer, by number and distance of slices."""
    base = Contrast.T1 if contrast is Contrast.T1C else contrast
    if not covers_brain(facts):
        return False
    if physics.contrast_by_physics(facts) is base:
        return True
    is_thin = (facts.slice_count or 0) >= _VOLUME_SLICES and (facts.step_mm or 9.0) <= _VOLUME_STEP_MM
    return is_thin and facts.echo_time_ms is None


def _by_echo_time(found: Classification, facts: SeriesFacts) -> Classification:
    text = physics.timing(facts)
    if physics.contrast_by_physics(facts) is Contrast.T2:
        evidence = (*found.evidence, f"{text}: the T2 of the two")
        return replace(found, contrast=Contrast.T2, evidence=evidence, confidence=BY_SEQUENCE, kind=None)
    te = facts.echo_time_ms
    if te is not None and te < physics.SHORT_TE_MS and not physics.is_gradient_echo(facts):
        return replace(found, evidence=(*found.evidence, f"{text}: proton density"), kind="proton density")
    return found
