"""The facts of a series, or of the parts into which it is split because it holds several volumes."""

from __future__ import annotations

from dataclasses import replace

from node.series.candidate import volume_problem
from node.series.classify import classify_description
from node.series.fact_reader import read_facts
from node.series.facts import SeriesFacts
from node.series.substacks import parts_of
from node.series.vocabulary import Vocabulary
from node.study import Series, Study

_MAY_HOLD_A_CONTRAST = (None, "proton density", "dual echo")
"""Kinds of a series that is worth splitting: a dual echo is called proton density, and its second echo is a T2."""


def read_parts(series: Series, study: Study, vocabulary: Vocabulary) -> list[tuple[Series, SeriesFacts | None]]:
    """``series`` with its facts, or the parts into which it is split because it holds several volumes.

    Only a series that may be one of the four contrasts is split, by words or, where these name nothing, by its parts.
    Facts are None if the modality is not MR.
    """
    if series.modality != "MR":
        return [(series, None)]
    facts = read_facts(series, study.planes)
    if volume_problem(facts) is None:
        return [(series, facts)]
    of_all = replace(facts, image_type=(), image_component=None, made_by_software=None)  # the first image's, not all's
    kinds = {classify_description(series.series_description, each, vocabulary).kind for each in (facts, of_all)}
    if kinds.isdisjoint(_MAY_HOLD_A_CONTRAST):
        return [(series, facts)]
    parts = parts_of(series)
    if not parts:
        return [(series, facts)]
    return [(one.series, replace(read_facts(one.series, study.planes), is_phase=one.is_phase)) for one in parts]
