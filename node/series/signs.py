"""Signs that contrast agent was given in an examination, from series that are not asked whether they are T1c."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from node.series.classify import named_agent
from node.series.facts import SeriesFacts
from node.study import Series

GIVEN_KINDS = frozenset(["subtraction", "perfusion"])
"""Sorts of series that exist only where contrast agent was given. Arterial spin labelling needs none."""


@dataclass(frozen=True, slots=True)
class Other:
    """A series of the study: what sort it is (``kind`` None: one of the four, or unknown), and its header."""

    series: Series
    facts: SeriesFacts
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Sign:
    """Contrast agent was given by ``moment`` (None: at some time), as ``text`` tells; ``kind`` as in `GIVEN_KINDS`."""

    kind: str
    moment: datetime | None
    text: str


def signs_of(others: Sequence[Other]) -> list[Sign]:
    """What the series of a study say of an injection, whatever their contrast.

    A Contrast/Bolus Agent counts only where other series lack it: often it is copied to all at registration.
    """
    found = [
        Sign(one.kind or "", one.facts.acquisition_datetime, f"the {one.kind} {one.series.label}")
        for one in others
        if one.kind in GIVEN_KINDS
    ]
    found += [
        Sign("bolus start", one.facts.contrast_bolus_start, f"the Contrast/Bolus Start Time of {one.series.label}")
        for one in others
        if one.facts.contrast_bolus_start
    ]
    with_agent = [one for one in others if named_agent(one.facts)]
    if len(with_agent) < len(others):
        found += [
            Sign("agent", one.facts.acquisition_datetime, f"the Contrast/Bolus Agent of {one.series.label}")
            for one in with_agent
            if one.facts.acquisition_datetime
        ]
    return found
